// Parameters, lists and variables that several modules see: each check on models of its own. Values are compared with what
// plain libtorch computes.
//
//   shared CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

// Reads parameters of a module below itself, before and after it calls that module.
struct ReadsImpl : torch::nn::Module {
    ReadsImpl() : before(register_module("before", Linear(3, 3))), last(register_module("last", Linear(3, 3))) {}
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        auto first = x.matmul(before->weight);
        auto second = gp::call(before, x);
        auto third = gp::call(last, x);
        return scope.output(std::vector<Tensor>{first, second, third, x + last->bias});
    }
    Linear before, last;
};
TORCH_MODULE(Reads);

void read_around() {
    Reads net;
    const auto x = torch::randn({2, 3});
    const Tensor weight = net->before->weight, bias = net->last->bias;
    gp::Session session;
    gp::Root root(net, "Reads");
    const auto expect = [&](const std::vector<gp::Spec>& patches, const Tensor& read, const Tensor& own, const Tensor& last) {
        auto set = session.patches(patches);
        for (int run = 0; run < 2; ++run) {
            const auto found = net(x);
            same(found[0], x.matmul(read));
            same(found[1], torch::addmm(net->before->bias, x, own.t()));
            same(found[2], torch::addmm(net->last->bias, x, net->last->weight.t()));
            same(found[3], x + last);
        }
    };
    expect({}, weight, weight, bias);
    expect({gp::add("before_weight", 1)}, weight + 1, weight + 1, bias);
    expect({gp::add("before.weight", 1)}, weight, weight + 1, bias);
    expect({gp::add("before_weight", 1), gp::add("before.weight", 2)}, weight + 1, weight + 1 + 2, bias);
    // The module has read its bias already when the one around it does.
    expect({gp::add("last_bias", 1)}, weight, weight, bias + 1);
}

// Gives its own parameter away, and takes one that is handed to it in a map.
struct GivesImpl : torch::nn::Module {
    GivesImpl() : w(register_parameter("w", torch::randn({3, 3}))) {}
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(std::vector<Tensor>{w, x});
    }
    Tensor w;
};
TORCH_MODULE(Gives);
struct TakesImpl : torch::nn::Module {
    Tensor forward(Tensor x, std::map<std::string, Tensor> weights, std::optional<Tensor> more) {
        gp::Scope scope(this, {{"x", x}, {"weights", weights}, {"more", more}});
        return scope.output(x.matmul(weights["w"]) + *more);
    }
};
TORCH_MODULE(Takes);
struct HandsImpl : torch::nn::Module {
    HandsImpl() : gives(register_module("gives", Gives())), takes(register_module("takes", Takes())) {
        b = register_buffer("b", torch::randn({3}));
    }
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(takes->forward(x, {{"w", gives(x)[0]}}, b));
    }
    Gives gives;
    Takes takes;
    Tensor b;
};
TORCH_MODULE(Hands);

void handed() {
    Hands net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Hands");
    for (int run = 0; run < 2; ++run) {
        auto set = session.patches({gp::add("gives.w", 1), gp::zero("b").slice("[0]")});
        auto b = net->b.clone();
        b[0] = 0;
        same(net(x), x.matmul(net->gives->w + 1) + b);
        require(set[0].counts().applied == 1 && set[1].counts().applied == 1, "both were applied once");
    }
    same(net(x), x.matmul(net->gives->w) + net->b);
}

// Reads a parameter of a module around it, which it was given once, by a member that is not registered.
struct KeepsOneImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(x.matmul(kept));
    }
    Tensor kept;
};
TORCH_MODULE(KeepsOne);
struct CallsOneImpl : torch::nn::Module {
    CallsOneImpl() : inner(register_module("inner", KeepsOne())) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(inner(x) + 1);
    }
    KeepsOne inner;
};
TORCH_MODULE(CallsOne);
struct LendsImpl : torch::nn::Module {
    LendsImpl() : deep(register_module("deep", CallsOne())) {
        deep->inner->kept = w = register_parameter("w", torch::randn({3, 3}));
    }
    // Reads it after the module below, before it, or not at all.
    Tensor forward(Tensor x, int way) {
        gp::Scope scope(this, {{"x", x}});
        const Tensor before = way == 1 ? x.matmul(w) : x;
        const Tensor y = deep(x);
        return scope.output(before + y + (way == 0 ? x.matmul(w) : x));
    }
    CallsOne deep;
    Tensor w;
};
TORCH_MODULE(Lends);

void lent() {
    Lends net;
    const auto x = torch::randn({2, 3});
    for (const bool is_recorded : {false, true}) {
        gp::Session session;
        gp::Root root(net, "Lends");
        const auto by_hand = [&](int way, const Tensor& w) {
            const Tensor own = x.matmul(w);
            return (way == 1 ? own : x) + (x.matmul(w) + 1) + (way == 0 ? own : x);
        };
        for (int way = 0; way < 3; ++way) {
            session.set_recording(is_recorded);
            same(net(x, way), by_hand(way, net->w));
            auto patch = session.patch(gp::add("w", 1));
            for (int run = 0; run < 2; ++run) same(net(x, way), by_hand(way, net->w + 1));
            require(patch.counts().applied == 2, "once in each run");
        }
        session.set_recording(false);
        require(session.notes().empty(), "nothing is to be said");
        if (is_recorded) is(session.graphs()["Lends"]["w"].shape(), "Tensor(3, 3)");
    }
}

// Takes variables of its caller's by reference, and fills them.
struct State {
    Tensor hidden;
    int64_t steps;
};

}  // namespace

template <>
struct graphpatch::Fields<State> {
    static auto of(State& state) { return graphpatch::fields("hidden", state.hidden, "steps", state.steps); }
};

namespace {

struct FillsImpl : torch::nn::Module {
    Tensor forward(Tensor& x, std::vector<Tensor>& cache, std::map<std::string, Tensor>& named, State& state) {
        std::map<std::string, std::unique_ptr<int>> others; // of a type that cannot be copied
        gp::Scope scope(this, {{"x", x}, {"cache", cache}, {"named", named}, {"state", state}, {"others", others}});
        auto y = x + cache[0] + named["a"] + state.hidden * state.steps;
        cache.push_back(x * 2);
        std::swap(cache[0], cache[1]);
        named["b"] = named["a"] * 3;
        state.steps += 1;
        return scope.output(y);
    }
};
TORCH_MODULE(Fills);

struct FilledImpl : torch::nn::Module {
    FilledImpl() : fills(register_module("fills", Fills())) {}
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        std::vector<Tensor> cache{x + 1, x + 2};
        std::map<std::string, Tensor> named{{"a", x + 3}};
        State state{x + 4, 2};
        auto y = fills(x, cache, named, state);
        require(cache.size() == 3 && named.size() == 2, "the module has filled them");
        return scope.output(std::vector<Tensor>{y, x, cache[0], cache[1], cache[2], named["a"], named["b"], state.hidden,
                                                torch::tensor(state.steps)});
    }
    Fills fills;
};
TORCH_MODULE(Filled);

void filled_by_reference() {
    Filled net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Filled");
    const auto expect = [&](const std::vector<gp::Spec>& patches, const std::vector<Tensor>& expected) {
        auto set = session.patches(patches);
        const auto found = net(x);
        for (size_t i = 0; i < expected.size(); ++i) same(found[i], expected[i]);
    };
    const auto all = [&](const Tensor& y, const Tensor& made, const Tensor& b, int64_t steps) {
        return std::vector<Tensor>{y, x, x + 2, x + 1, made, x + 3, b, x + 4, torch::tensor(steps)};
    };
    const auto bare = x + (x + 1) + (x + 3) + (x + 4) * 2;
    expect({}, all(bare, x * 2, (x + 3) * 3, 3));
    expect({gp::add("fills.x", 100)}, all((x + 100) + (x + 1) + (x + 3) + (x + 4) * 2, (x + 100) * 2, (x + 3) * 3, 3));
    expect({gp::add("fills.cache|sub_0", 100)}, all(x + (x + 1 + 100) + (x + 3) + (x + 4) * 2, x * 2, (x + 3) * 3, 3));
    expect({gp::zero("fills.named|a")}, all(x + (x + 1) + torch::zeros({2, 3}) + (x + 4) * 2, x * 2, torch::zeros({2, 3}), 3));
    expect({gp::zero("fills.state|hidden")}, all(x + (x + 1) + (x + 3) + torch::zeros({2, 3}), x * 2, (x + 3) * 3, 3));
    // The number was changed by the call itself, which saw 12.
    expect({gp::add("fills.state|steps", 10)}, all(x + (x + 1) + (x + 3) + (x + 4) * 12, x * 2, (x + 3) * 3, 13));
}

// Fills a list of TorchScript's type, which others hold; and holds the one that it returns.
struct PutsImpl : torch::nn::Module {
    Tensor forward(Tensor x, c10::IValue found) {
        gp::Scope scope(this, {{"x", x}, {"found", found}});
        auto list = found.toTuple()->elements()[0].toTensorList();
        list.push_back(x * 2);
        list[1] = list.get(1) * 10;
        return scope.output(list.get(0) + 1);
    }
};
TORCH_MODULE(Puts);
struct KeepsImpl : torch::nn::Module {
    c10::IValue forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        c10::Dict<std::string, Tensor> dict;
        dict.insert("first", x + 1), dict.insert("second", x + 2);
        kept = dict;
        return scope.output(kept);
    }
    c10::IValue kept;
};
TORCH_MODULE(Keeps);
struct ListsImpl : torch::nn::Module {
    ListsImpl() : puts(register_module("puts", Puts())), keeps(register_module("keeps", Keeps())) {}
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        c10::List<Tensor> found({x + 1, x + 2});
        auto y = puts(x, c10::IValue(c10::ivalue::Tuple::create({found})));
        std::vector<Tensor> out{y};
        for (const Tensor& element : found.vec()) out.push_back(element);
        auto dict = keeps(x).toGenericDict();
        dict.insert("put", x * 5);
        puts(x, c10::IValue(c10::ivalue::Tuple::create({c10::List<Tensor>({x, x})})));
        for (const auto& entry : keeps->kept.toGenericDict()) out.push_back(entry.value().toTensor());
        for (const auto& entry : dict) out.push_back(entry.value().toTensor());
        return scope.output(out);
    }
    Puts puts;
    Keeps keeps;
};
TORCH_MODULE(Lists);

void filled_ivalues() {
    Lists net;
    const auto x = torch::randn({2, 3});
    const std::vector<Tensor> bare = net(x);
    require(bare.size() == 10, "as many values");
    gp::Session session;
    gp::Root root(net, "Lists");
    const auto expect = [&](const gp::Spec& spec, size_t at, const Tensor& value) {
        auto patch = session.patch(spec);
        const auto found = net(x);
        require(patch.counts().applied == 1 && found.size() == bare.size(), "it is applied");
        for (size_t i = 0; i < bare.size(); ++i) same(found[i], i == at ? value : bare[i]);
    };
    expect(gp::add("puts.found|sub_0.sub_0", -0.0), 0, bare[0]);
    expect(gp::add("puts.found|sub_0.sub_0", 100), 0, x + 1 + 100 + 1);
    expect(gp::add("puts.found|sub_0.sub_1", 100), 2, (x + 2 + 100) * 10);
    // Only the caller of the module sees it.
    expect(gp::add("keeps.output|first", 100), 7, x + 1 + 100);
    for (size_t i = 0; i < bare.size(); ++i) same(net(x)[i], bare[i]);
}

// A Sequential of modules with Scope lines, which is called twice, and a clone of the whole.
struct BlockImpl : torch::nn::Module {
    BlockImpl() : linear(register_module("linear", Linear(3, 3))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        torch::NoGradGuard no_grad;
        auto y = torch::empty({2, 3});
        torch::relu_out(y, gp::call(linear, x));
        y.slice(1, 0, 1).add_(linear->weight.slice(0, 0, 1).sum());
        return scope.output(y);
    }
    Linear linear;
};
TORCH_MODULE(Block);
struct TwiceImpl : torch::nn::Cloneable<TwiceImpl> {
    TwiceImpl() { reset(); }
    void reset() override { blocks = register_module("blocks", torch::nn::Sequential(Linear(3, 3), torch::nn::Tanh())); }
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x = gp::call(blocks, x);
        return scope.output(gp::call(blocks, x));
    }
    torch::nn::Sequential blocks{nullptr};
};
TORCH_MODULE(Twice);

void written_by_out() {
    Block block;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(block, "Block");
    const auto by_hand = [&](const Tensor& weight, const Tensor& read) {
        torch::NoGradGuard no_grad;
        auto y = torch::relu(torch::addmm(block->linear->bias, x, weight.t()));
        y.slice(1, 0, 1).add_(read.slice(0, 0, 1).sum());
        return y;
    };
    const Tensor weight = block->linear->weight.detach();
    same(block(x), by_hand(weight, weight));
    {
        auto patch = session.patch(gp::add("linear.weight", 1));
        same(block(x), by_hand(weight + 1, weight));
    }
    {
        auto patch = session.patch(gp::add("linear_weight", 1));
        same(block(x), by_hand(weight, weight + 1));
    }
    {
        auto patch = session.patch(gp::zero("relu"));
        same(block(x), by_hand(weight, weight).zero_().slice(1, 0, 1).add_(weight[0].sum()).expand({2, 3}) *
                           torch::tensor({1.0, 0.0, 0.0}));
    }
    {
        // What is written into the patched copy of the view is written into `y` as well.
        auto patch = session.patch(gp::add("slice_1", 5));
        auto expected = torch::relu(torch::addmm(block->linear->bias, x, weight.t()));
        expected.slice(1, 0, 1).add_(5).add_(weight[0].sum());
        same(block(x), expected);
        require(patch.counts().applied == 1, "the view is patched");
    }
}

void called_twice_and_cloned() {
    Twice net;
    const auto x = torch::randn({2, 3});
    const auto clone = std::dynamic_pointer_cast<TwiceImpl>(net->clone());
    gp::Session session;
    gp::Root root(net, "Twice");
    const auto linear = [](TwiceImpl& module) { return module.blocks[0]->as<Linear>(); };
    const auto bare = net(x);
    linear(*clone)->weight.mul_(2);
    const auto cloned = clone->forward(x);
    const auto both = [&](TwiceImpl& module, double first, double second) {
        const auto inner = torch::tanh(linear(module)->forward(x) + first);
        return torch::tanh(linear(module)->forward(inner) + second);
    };
    auto first = session.patch("Twice:blocks.sub_0.output=add:1");
    same(net(x), both(*net, 1, 0));
    auto second = session.patch("Twice:blocks_1.sub_0.output=add:2");
    same(net(x), both(*net, 1, 2));
    // The clone is a root of the same class, and so of the same name.
    same(clone->forward(x), both(*clone, 1, 2));
    first.remove();
    second.remove();
    gp::Root other(clone, "Clone");
    auto patch = session.patch("Clone:blocks.sub_0.weight=zero");
    same(net(x), bare);
    const auto bias = torch::tanh(linear(*clone)->bias.expand({2, 3}));
    same(clone->forward(x), torch::tanh(linear(*clone)->forward(bias)));
    patch.remove();
    same(clone->forward(x), cloned);
}

const std::map<std::string, void (*)()> kChecks = {
    {"read_around", read_around},
    {"handed", handed},
    {"lent", lent},
    {"filled_by_reference", filled_by_reference},
    {"filled_ivalues", filled_ivalues},
    {"written_by_out", written_by_out},
    {"called_twice_and_cloned", called_twice_and_cloned},
};

} // namespace

int main(int argc, char** argv) {
    torch::GradMode::set_enabled(false);
    torch::manual_seed(0);
    return checked(argc, argv, kChecks);
}
