// A finished program with a GPT of torch::nn modules, some of whose classes are its own. It knows nothing of libgraphpatch.
//
//   gpt MODE OUT.pt [N [WIDTH]]
//
// MODE
//   forward   N forwards
//   throws    a forward of which the second block throws, then N forwards
//   threads   N threads with a forward each
//   recursive N forwards of a module that calls itself
//   parts     N forwards through the model's parts, not through its own forward
//   time      N times a forward; prints the microseconds of each
//
// OUT.pt is a tuple: weights by name, inputs, outputs.

#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace {

using torch::Tensor;

bool fails = false;

struct AttentionImpl : torch::nn::Module {
    AttentionImpl(int64_t width, int64_t heads) : heads(heads), qkv(width, 3 * width), proj(width, width) {
        register_module("qkv", qkv);
        register_module("proj", proj);
    }
    Tensor forward(const Tensor& x) {
        const auto sizes = x.sizes().vec();
        const auto parts = qkv(x).chunk(3, -1);
        const auto split = [&](const Tensor& part) {
            return part.view({sizes[0], sizes[1], heads, sizes[2] / heads}).transpose(1, 2);
        };
        auto scores = torch::matmul(split(parts[0]), split(parts[1]).transpose(-1, -2)) / std::sqrt(double(sizes[2] / heads));
        const auto mask = torch::ones({sizes[1], sizes[1]}, torch::kBool).tril().logical_not();
        const auto weights = scores.masked_fill(mask, -INFINITY).softmax(-1);
        return proj(torch::matmul(weights, split(parts[2])).transpose(1, 2).reshape(sizes));
    }
    int64_t heads;
    torch::nn::Linear qkv, proj;
};
TORCH_MODULE(Attention);

struct MlpImpl : torch::nn::Module {
    explicit MlpImpl(int64_t width) : up(width, 4 * width), down(4 * width, width) {
        register_module("up", up);
        register_module("down", down);
    }
    Tensor forward(Tensor x) { return down(torch::gelu(up(x))); }
    torch::nn::Linear up, down;
};
TORCH_MODULE(Mlp);

struct BlockImpl : torch::nn::Module {
    BlockImpl(int64_t width, int64_t heads, bool may_fail)
        : may_fail(may_fail), ln1(torch::nn::LayerNormOptions({width})), attn(width, heads),
          ln2(torch::nn::LayerNormOptions({width})), mlp(width), drop(0.1) {
        register_module("ln1", ln1);
        register_module("attn", attn);
        register_module("ln2", ln2);
        register_module("mlp", mlp);
        register_module("drop", drop);
    }
    Tensor forward(Tensor x) {
        x = x + drop(attn(ln1(x)));
        if (may_fail && fails) throw std::runtime_error("the block fails");
        return x + drop(mlp(ln2(x)));
    }
    bool may_fail;
    torch::nn::LayerNorm ln1;
    Attention attn;
    torch::nn::LayerNorm ln2;
    Mlp mlp;
    torch::nn::Dropout drop;
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
    GptImpl(int64_t words, int64_t width, int64_t heads, int64_t blocks)
        : wte(words, width), wpe(64, width), ln(torch::nn::LayerNormOptions({width})),
          head(torch::nn::LinearOptions(width, words).bias(false)) {
        register_module("wte", wte);
        register_module("wpe", wpe);
        register_module("h", h);
        for (int64_t i = 0; i < blocks; ++i) h->push_back(Block(width, heads, i == 1));
        register_module("ln", ln);
        register_module("head", head);
    }
    Tensor forward(Tensor ids) {
        auto x = wte(ids) + wpe(torch::arange(ids.size(1), torch::kLong));
        for (const auto& block : *h) x = block->as<Block>()->forward(x);
        return head(ln(x));
    }
    torch::nn::Embedding wte, wpe;
    torch::nn::ModuleList h;
    torch::nn::LayerNorm ln;
    torch::nn::Linear head;
};
TORCH_MODULE(Gpt);

// Calls itself until `depth` is used up.
struct RecursiveImpl : torch::nn::Module {
    explicit RecursiveImpl(int64_t width) : fc(width, width) { register_module("fc", fc); }
    [[gnu::noinline, gnu::noclone]] Tensor forward(const Tensor& x, int64_t depth) {
        const Tensor here = torch::tanh(fc(x));
        return depth ? forward(here, depth - 1) : here;
    }
    torch::nn::Linear fc;
};
TORCH_MODULE(Recursive);

struct HolderImpl : torch::nn::Module {
    HolderImpl() : tree(8) { register_module("tree", tree); }
    [[gnu::noinline]] Tensor forward(const Tensor& x) { return tree(x, 2).relu(); }
    Recursive tree;
};
TORCH_MODULE(Holder);

std::vector<c10::IValue> outputs;

c10::IValue tuple(std::vector<c10::IValue> values) { return c10::ivalue::Tuple::create(std::move(values)); }

int save(const char* file, const torch::nn::Module& model, const Tensor& input) {
    std::vector<c10::IValue> weights;
    for (const auto& p : model.named_parameters()) weights.push_back(tuple({p.key(), p.value().variable_data()}));
    std::vector<char> bytes = torch::pickle_save(tuple({tuple(std::move(weights)), input, tuple(outputs)}));
    std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return 0;
}

double microseconds(Gpt& gpt, const Tensor& ids) {
    const auto begin = std::chrono::steady_clock::now();
    gpt(ids);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

extern "C" int gpt_main(int argc, char** argv) {
    if (argc < 3) return 2;
    const std::string mode = argv[1];
    const int n = argc > 3 ? std::atoi(argv[3]) : 1;
    const torch::NoGradGuard no_grad;
    torch::manual_seed(0);
    torch::set_num_threads(1);
    if (mode == "recursive") {
        Holder holder;
        holder->eval();
        const auto x = torch::randn({2, 8});
        for (int i = 0; i < n; ++i) outputs.push_back(holder(x));
        return save(argv[2], *holder, x);
    }
    Gpt gpt(50, argc > 4 ? std::atoi(argv[4]) : 16, 4, 2);
    gpt->eval();
    const auto ids = torch::randint(0, 50, {2, 6});
    if (mode == "throws") {
        fails = true;
        try {
            gpt(ids);
        } catch (const std::runtime_error& error) {
            std::puts(error.what());
        }
        fails = false;
    }
    if (mode == "threads") {
        outputs.resize(n);
        std::vector<std::thread> all;
        for (int i = 0; i < n; ++i)
            all.emplace_back([&, i] {
                const torch::NoGradGuard no_grad_here;
                outputs[i] = gpt(ids);
            });
        for (auto& thread : all) thread.join();
    } else if (mode == "parts") {
        for (int i = 0; i < n; ++i) {
            auto x = gpt->wte(ids);
            for (const auto& block : *gpt->h) x = block->as<Block>()->forward(x);
            outputs.push_back(gpt->head(x));
        }
    } else if (mode == "time") {
        for (int i = 0; i < n; ++i) std::printf("%.3f\n", microseconds(gpt, ids));
    } else {
        for (int i = 0; i < n; ++i) outputs.push_back(gpt(ids));
    }
    return save(argv[2], *gpt, ids);
}

int main(int argc, char** argv) { return gpt_main(argc, argv); }
