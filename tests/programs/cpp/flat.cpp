// A host program that uses neither TorchScript nor libgraphpatch: plain operations, and torch::nn modules.
//
//   flat MODE OUT.pt [N]
//
// MODE
//   ops      N forwards of two layers written as plain operations
//   nn       a torch::nn model: made, eval(), N forwards
//   attention  one causal attention of an input with itself
//   load     the same, its weights saved and loaded into a second one, which runs
//   train    N steps of SGD on that model
//   threads  N threads, started in several ways, run plain forwards at once
//   twice    two models of the same class
//   loop     forwards until the process is killed; prints "ready" after N
//   fork     a forward in the parent, then one in a child and another in the parent
//   return, exit, _exit, quick_exit, abort   a forward, then this way to end, with code 7
//
// OUT.pt is a tuple: weights by name, inputs, outputs.

#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <pthread.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

struct BlockImpl : torch::nn::Module {
    BlockImpl() : fc(4, 4), norm(torch::nn::LayerNormOptions({4})) {
        register_module("fc", fc);
        register_module("norm", norm);
        scale = register_parameter("scale", torch::full({4}, 0.5));
    }
    torch::Tensor forward(torch::Tensor x) { return norm(torch::tanh(fc(x)) * scale) + x; }
    torch::nn::Linear fc;
    torch::nn::LayerNorm norm;
    torch::Tensor scale;
};
TORCH_MODULE(Block);

struct NetImpl : torch::nn::Module {
    NetImpl() : embed(10, 4), blocks(Block(), Block()), head(4, 3) {
        register_module("embed", embed);
        register_module("blocks", blocks);
        register_module("head", head);
    }
    torch::Tensor forward(torch::Tensor ids) {
        auto x = blocks->forward(embed(ids));
        return torch::softmax(head(x), 1);
    }
    torch::nn::Embedding embed;
    torch::nn::Sequential blocks;
    torch::nn::Linear head;
};
TORCH_MODULE(Net);

std::vector<c10::IValue> outputs;

c10::IValue tuple(std::vector<c10::IValue> values) { return c10::ivalue::Tuple::create(std::move(values)); }

void save(const char* file, std::vector<c10::IValue> weights, const torch::Tensor& input) {
    std::vector<char> bytes = torch::pickle_save(tuple({tuple(std::move(weights)), input, tuple(outputs)}));
    std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::vector<c10::IValue> weights_of(const Net& net) {
    std::vector<c10::IValue> pairs;
    for (const auto& p : net->named_parameters()) pairs.push_back(tuple({p.key(), p.value().variable_data()}));
    return pairs;
}

// Plain operations on tensors that no module holds.
struct Plain {
    torch::Tensor x, w1, b1, w2, b2;
    Plain() {
        torch::manual_seed(0);
        x = torch::randn({2, 4}), w1 = torch::randn({4, 5}), b1 = torch::randn({5});
        w2 = torch::randn({5, 3}), b2 = torch::randn({3});
    }
    torch::Tensor forward() const { return torch::addmm(b2, torch::relu(torch::addmm(b1, x, w1)), w2); }
    std::vector<c10::IValue> weights() const {
        return {tuple({"w1", w1}), tuple({"b1", b1}), tuple({"w2", w2}), tuple({"b2", b2})};
    }
};

void* forward_in_c(void* plain) {
    outputs[0] = static_cast<Plain*>(plain)->forward();
    pthread_exit(plain);
}

void threads(const Plain& plain, int n) {
    outputs.resize(n);
    std::vector<std::thread> all;
    for (int i = 1; i < n; ++i) all.emplace_back([&plain, i] { outputs[i] = plain.forward(); });
    for (auto& thread : all) thread.join();
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 4 << 20);
    pthread_t thread;
    void* answer = nullptr;
    if (pthread_create(&thread, &attributes, forward_in_c, const_cast<Plain*>(&plain)) != 0) std::abort();
    if (pthread_join(thread, &answer) != 0 || answer != &plain) std::abort();
    const auto wait = [](void* plain) -> void* {
        static_cast<Plain*>(plain)->forward();
        for (;;) pause();
    };
    if (pthread_create(&thread, nullptr, wait, const_cast<Plain*>(&plain)) != 0) std::abort();
    pthread_cancel(thread);
    if (pthread_join(thread, &answer) != 0 || answer != PTHREAD_CANCELED) std::abort();
    pthread_attr_setstacksize(&attributes, 0);  // too small: refused, and changes nothing
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, [](void*) -> void* { return nullptr; }, nullptr) != 0) std::abort();
    pthread_attr_destroy(&attributes);
}

void train(Net& net, const torch::Tensor& ids, int n) {
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
    const auto target = torch::tensor({0, 1, 2});
    for (int i = 0; i < n; ++i) {
        optimizer.zero_grad();
        auto loss = torch::nll_loss(torch::log(net(ids)), target);
        loss.backward();
        optimizer.step();
        outputs.push_back(loss.detach());
    }
}

int forked(const Plain& plain, const char* out) {
    outputs.push_back(plain.forward());
    const pid_t child = fork();
    outputs.push_back(plain.forward());
    if (child == 0) {
        save((std::string(out) + ".child").c_str(), plain.weights(), plain.x);
        return 5;
    }
    int status = 0;
    waitpid(child, &status, 0);
    save(out, plain.weights(), plain.x);
    return WIFEXITED(status) && WEXITSTATUS(status) == 5 ? 0 : 1;
}

[[noreturn]] void end(const std::string& way) {
    if (way == "_exit") _exit(7);
    if (way == "quick_exit") std::quick_exit(7);
    if (way == "abort") std::abort();
    std::exit(7);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: flat MODE OUT.pt [N]\n"), 1;
    at::set_num_threads(1);
    const std::string mode = argv[1];
    const int n = argc > 3 ? std::atoi(argv[3]) : 1;

    if (mode == "nn" || mode == "load" || mode == "train" || mode == "twice") {
        torch::manual_seed(0);
        Net net;
        if (mode == "load") {
            torch::save(net, std::string(argv[2]) + ".weights");
            torch::manual_seed(1);
            net = Net();
            torch::load(net, std::string(argv[2]) + ".weights");
        }
        const auto ids = torch::tensor({1, 5, 3});
        net->train(mode == "train");
        if (mode == "train") {
            train(net, ids, n);
        } else {
            torch::NoGradGuard no_grad;
            for (int i = 0; i < n; ++i) outputs.push_back(net(ids));
            if (mode == "twice") {
                Net other;
                other->eval();
                outputs.push_back(other(ids));
                auto pairs = weights_of(net);
                for (auto& pair : weights_of(other)) pairs.push_back(pair);
                save(argv[2], pairs, ids);
                return 0;
            }
        }
        save(argv[2], weights_of(net), ids);
        return 0;
    }

    if (mode == "attention") {
        torch::manual_seed(0);
        const auto x = torch::randn({2, 2, 5, 4});
        outputs.push_back(at::scaled_dot_product_attention(x, x, x, {}, 0.0, true));
        save(argv[2], {}, x);
        return 0;
    }
    Plain plain;
    if (mode == "fork") return forked(plain, argv[2]);
    if (mode == "threads") {
        threads(plain, n);
    } else if (mode == "loop") {
        for (int i = 0;; ++i) {
            plain.forward();
            if (i % n == 0) std::puts("ready"), std::fflush(stdout);
        }
    } else {
        for (int i = 0; i < n; ++i) outputs.push_back(plain.forward());
    }
    save(argv[2], plain.weights(), plain.x);
    if (mode == "ops" || mode == "threads") return 0;
    if (mode == "return") return 7;
    end(mode);
}
