// Everything that the C++ binding does with torch::nn modules, each check on models of its own. Values are compared with
// what plain libtorch computes.
//
//   modules CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/autograd.h>
#include <torch/nn.h>

#include <atomic>
#include <thread>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

struct MlpImpl : torch::nn::Module {
    explicit MlpImpl(int64_t width = 4)
        : up(register_module("up", Linear(width, 2 * width))), down(register_module("down", Linear(2 * width, width))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x = torch::relu(gp::call(up, x));
        return scope.output(gp::call(down, x));
    }
    Linear up, down;
};
TORCH_MODULE(Mlp);

// A Linear called twice, a module under two names, a ModuleList, a ModuleDict and a Sequential.
struct NetImpl : torch::nn::Module {
    NetImpl() {
        linear = register_module("linear", Linear(4, 4));
        shared = register_module("first_name", Mlp());
        register_module("second_name", shared);
        list = register_module("layers", torch::nn::ModuleList(Mlp(), Linear(4, 4)));
        dict = register_module("heads", torch::nn::ModuleDict());
        dict->update(std::vector<std::pair<std::string, std::shared_ptr<Module>>>{{"left", Linear(4, 4).ptr()}});
        sequential = register_module("sequential", torch::nn::Sequential(Linear(4, 4), torch::nn::ReLU(), Mlp()));
    }
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x = gp::call(linear, x);
        x = gp::call(linear, x);
        x = shared(x);
        x = list[0]->as<Mlp>()->forward(x);
        x = gp::call(list[1]->as<Linear>(), x);
        x = gp::call(dict["left"]->as<Linear>(), x);
        x = gp::call(sequential, x);
        return scope.output(x);
    }
    Linear linear{nullptr};
    Mlp shared{nullptr};
    torch::nn::ModuleList list{nullptr};
    torch::nn::ModuleDict dict{nullptr};
    torch::nn::Sequential sequential{nullptr};
};
TORCH_MODULE(Net);

template <class Body>
gp::Node recorded(gp::Session& session, Body body) {
    {
        auto recording = session.recording();
        body();
    }
    const gp::Graphs graphs = session.graphs();
    return graphs[graphs.size() - 1];
}

void names() {
    Net net;
    const auto x = torch::randn({3, 4});
    const auto bare = net(x);
    gp::Session session;
    gp::Root root(net, "Net");
    const auto tree = recorded(session, [&] { same(net(x), bare); });
    same(tree.names(), {"x", "linear", "linear_1", "first_name", "layers_0", "layers_1", "heads_left", "sequential", "output"});
    same(tree["sequential"].names(), {"input", "sub_0", "sub_1", "sub_2", "output"});
    same(tree["sequential.sub_2"].names(), {"x", "up", "relu", "down", "output"});
    same(tree["linear"].names(), {"input", "weight", "t", "bias", "addmm", "output"});
    is(tree["linear.weight"].shape(), "Tensor(4, 4)");
    require(tree["linear"].is_scope() && !tree["x"].is_scope() && tree.kind() == "Graph(9)", "kinds");
    require(tree["layers_0.up.weight"].path() == "layers_0.up.weight", "a node's path");
    // Each path leads to the value that belongs there.
    const auto after = net->linear(net->linear(x));
    auto probe = session.probe("linear_1.output");
    auto shared = session.probe("first_name.output"), heads = session.probe("heads_left.input");
    same(net(x), bare);
    same(probe.value(), after);
    same(shared.value(), net->shared(after));
    same(heads.value(), net->list[1]->as<Linear>()->forward(net->list[0]->as<Mlp>()->forward(net->shared(after))));
    // The calls of parts in the last lines are no part of a run. Nothing else is to be said.
    for (const auto& note : session.notes())
        require(note.find("Mlp: called outside of the runs of Net") != std::string::npos, note);
}

void values() {
    Net net;
    const auto x = torch::randn({3, 4});
    const auto bare = net(x);
    gp::Session session;
    gp::Root root(net, "Net");
    const auto rest = [&](const Tensor& value) {  // the part of the model after layers.0
        auto y = net->dict["left"]->as<Linear>()->forward(net->list[1]->as<Linear>()->forward(value));
        return net->sequential->forward(y);
    };
    {  // an output: the caller gets the patched value
        auto set = session.patches({gp::replace("layers_0.output", torch::full({3, 4}, 2.0)), gp::add("layers_0.output", 1)});
        same(net(x), rest(torch::full({3, 4}, 3.0)));
        require(set.size() == 2 && set[0].counts().applied == 1 && set[1].counts().failed == 0, "both are counted");
        set[1].enable(false);
        same(net(x), rest(torch::full({3, 4}, 2.0)));
        set[0].set_value(torch::full({4}, 5.0));
        same(net(x), rest(torch::full({3, 4}, 5.0)));
    }
    same(net(x), bare);
    {  // an input: the module's code sees the patched value; the caller's tensor is unchanged
        const auto copy = x.clone();
        auto patch = session.patch(gp::zero("x").slice("[0]"));
        auto expected = x.clone();
        expected[0] = 0;
        const auto found = net(x);
        same(x, copy);
        patch.remove();
        same(found, net(expected));
    }
    {  // a weight: only in this call; the parameter itself is unchanged
        auto patch = session.patch("linear_1.weight=zero");
        const auto weight = net->linear->weight.clone();
        const auto expected = net->linear->bias.expand({3, 4});
        const auto y = net(x);
        same(net->linear->weight, weight);
        patch.remove();
        same(y, rest(net->list[0]->as<Mlp>()->forward(net->shared(expected))));
    }
    {  // an operation inside a module of torch::nn, and inside a Sequential's own module
        auto patch = session.patch(gp::replace("sequential.sub_2.relu", 0.0));
        same(net(x), net->sequential->ptr<MlpImpl>(2)->down->bias.expand({3, 4}));
    }
    {  // an index by tensors, runs, text
        auto patch = session.patch(gp::zero("output").index(torch::tensor({0, 2})).index(-1).runs("1.."));
        auto text = session.patch("output[1, 0]=add:2");
        auto expected = bare.clone();
        expected[1][0] += 2;
        patch.enable(false);
        same(net(x), expected);
        patch.enable(true);
        expected.index_put_({torch::tensor({0, 2}), -1}, 0);
        same(net(x), expected);
    }
    same(net(x), bare);
}

void gradients() {
    torch::GradMode::set_enabled(true);
    Mlp mlp;
    const auto x = torch::randn({2, 4});
    gp::Session session;
    gp::Root root(mlp, "Mlp");
    auto value = torch::randn({2, 8}, torch::requires_grad());
    const auto manual = [&](const Tensor& hidden) { return torch::autograd::grad({mlp->down(hidden).sum()}, {value})[0]; };
    {
        auto patch = session.patch(gp::replace("relu", value));
        const auto found = torch::autograd::grad({mlp(x).sum()}, {value})[0];
        patch.remove();
        same(found, manual(value));
    }
    int calls = 0;
    auto patch = session.patch(gp::custom("relu", [&](const Tensor& t) {
        ++calls;
        return t * value;
    }));
    const auto found = torch::autograd::grad({mlp(x).sum()}, {value})[0];
    patch.remove();
    require(calls == 1, "the function is called once");
    same(found, manual(torch::relu(mlp->up(x)) * value));
}

void functions() {
    Mlp mlp;
    const auto x = torch::randn({2, 4});
    const auto bare = mlp(x), hidden = torch::relu(mlp->up(x));
    gp::Session session;
    gp::Root root(mlp, "Mlp");
    const auto fails = [&](const gp::Function& function, const std::string& why) {
        auto patch = session.patch(gp::custom("relu", function));
        throws<std::exception>([&] { mlp(x); }, why);
        require(patch.last_error().find(why) != std::string::npos && patch.counts().failed == 1, patch.last_error());
        session.on_error(GP_ON_ERROR_SKIP);
        same(mlp(x), bare);
        session.on_error(GP_ON_ERROR_RAISE);
    };
    fails([](const Tensor&) -> Tensor { throw std::runtime_error("too hot"); }, "the function failed: too hot");
    fails([](const Tensor&) -> Tensor { throw 7; }, "no std::exception");
    fails([](const Tensor& t) { return t.matmul(t); }, "cannot be multiplied");
    {  // a result of another shape takes the value's place
        auto patch = session.patch(gp::custom("relu", [](const Tensor& t) { return t.slice(0, 1); }));
        same(mlp(x), mlp->down(hidden.slice(0, 1)));
    }
    {  // an undefined result leaves the value alone, the tensor itself too
        auto none = session.patch(gp::custom("relu", [](const Tensor&) { return Tensor(); }));
        auto same_one = session.patch(gp::custom("relu", [](const Tensor& t) { return t; }));
        same(mlp(x), bare);
        require(none.counts().applied == 1 && same_one.counts().applied == 1, "both were called");
    }
    {  // a slice, with a function that calls a module itself; that call is not part of the run
        auto patch = session.patch(
            gp::custom("relu", [&](const Tensor& t) { return t + mlp->down(hidden).sum() * 0 + 1; }).slice("[0]"));
        auto expected = hidden.clone();
        expected[0] += 1;
        same(mlp(x), mlp->down(expected));
    }
    // A function and its captured objects are destroyed as soon as it can no longer be called.
    auto life = std::make_shared<int>(0);
    {
        auto patch = session.patch(gp::custom("relu", [life](const Tensor& t) { return t * 1; }));
        auto moved = std::move(patch);
        mlp(x);
        require(life.use_count() > 1, "it is needed");
    }
    require(life.use_count() == 1, "it is let go of");
    throws<gp::Error>([&] { auto patch = session.patch(gp::custom("relu", nullptr)); }, "empty");
}

// As the C ABI promises of callbacks, an exception of any type is a failure of the patch, and the program goes on.
void throwing_callbacks() {
    Mlp mlp;
    const auto x = torch::randn({2, 4}), bare = mlp(x);
    gp::Session session;
    gp::Root root(mlp, "Mlp");
    const auto fails = [&](const std::string& why, const auto& set) {
        gp_spec* spec = nullptr;
        uint64_t id = 0;
        require(gp_spec_new("relu", &spec) == GP_STATUS_OK && set(spec) == GP_STATUS_OK, "a spec with a function");
        require(gp_patch_register(session.get(), spec, &id) == GP_STATUS_OK, "registered");
        gp_spec_free(spec);
        throws<c10::Error>([&] { mlp(x); }, why);
        session.on_error(GP_ON_ERROR_SKIP);
        same(mlp(x), bare);
        session.on_error(GP_ON_ERROR_RAISE);
        gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
        require(gp_patch_get_counts(session.get(), id, &counts) == GP_STATUS_OK, "counts");
        require(counts.failed == 2 && counts.applied == 0, "both runs failed there");
        require(gp_patch_remove(session.get(), id) == GP_STATUS_OK, "removed");
        same(mlp(x), bare);
    };
    using Tensor = DLManagedTensorVersioned;
    const gp_callback hot = [](void*, Tensor*, Tensor**) -> int32_t { throw std::runtime_error("too hot"); };
    const gp_callback seven = [](void*, Tensor*, Tensor**) -> int32_t { throw 7; };
    const gp_torch_callback cold = [](void*, const void*, const void**) -> int32_t { throw std::runtime_error("too cold"); };
    const gp_torch_callback eight = [](void*, const void*, const void**) -> int32_t { throw 8; };
    fails("too hot", [&](gp_spec* spec) { return gp_spec_custom(spec, hot, nullptr); });
    fails("unknown kind", [&](gp_spec* spec) { return gp_spec_custom(spec, seven, nullptr); });
    fails("too cold", [&](gp_spec* spec) { return gp_spec_custom_torch(spec, cold, nullptr); });
    fails("unknown kind", [&](gp_spec* spec) { return gp_spec_custom_torch(spec, eight, nullptr); });
}

// --- inputs and outputs of every type ---

struct Pair {
    Tensor left, right;
};

}  // namespace

template <>
struct graphpatch::Fields<Pair> {
    static auto of(Pair& pair) { return graphpatch::fields("left", pair.left, "right", pair.right); }
};

namespace {

struct TypesImpl : torch::nn::Module {
    std::tuple<Tensor, std::vector<Tensor>, double> forward(std::optional<Tensor> maybe, std::vector<Tensor> list,
                                                            std::tuple<Tensor, int64_t> tuple,
                                                            std::map<std::string, Tensor> map, c10::IValue any, Pair pair,
                                                            int64_t n, double f, bool b, const Tensor& constant,
                                                            Tensor undefined) {
        gp::Scope scope(this, {{"maybe", maybe},
                               {"list", list},
                               {"tuple", tuple},
                               {"map", map},
                               {"any", any},
                               {"pair", pair},
                               {"n", n},
                               {"f", f},
                               {"b", b},
                               {"constant", constant},
                               {"undefined", undefined},
                               {"word", "text"},
                               {"type", *this}});
        auto y = list.at(0) + std::get<0>(tuple) * std::get<1>(tuple) + map.at("key") + pair.left - pair.right;
        y = y + any.toTuple()->elements()[0].toTensor() * any.toTuple()->elements()[1].toList().get(0).toInt();
        if (maybe) y = y + *maybe;
        y = y * n + f + constant;
        if (b) y = -y;
        return scope.output(std::make_tuple(y, list, f));
    }
};
TORCH_MODULE(Types);

void types() {
    Types model;
    gp::Session session;
    gp::Root root(model, "Types");
    const auto one = [](double value) { return torch::full({2}, value); };
    const auto call = [&](std::optional<Tensor> maybe) {
        c10::List<int64_t> list({3});
        return model(maybe, std::vector<Tensor>{one(1), one(2)}, std::make_tuple(one(3), int64_t{2}),
                     std::map<std::string, Tensor>{{"key", one(4)}, {"a b", one(9)}},
                     c10::IValue(c10::ivalue::Tuple::create({one(5), list})), Pair{one(6), one(7)}, int64_t{2}, 0.5, true,
                     one(8), Tensor());
    };
    const auto y = [](double sum, double n, double f, double constant, double sign) {
        return torch::full({2}, sign * (sum * n + f + constant));
    };
    const double sum = 1 + 6 + 4 - 1 + 15;
    const auto tree = recorded(session, [&] { same(std::get<0>(call({})), y(sum, 2, 0.5, 8, -1)); });
    is(tree["maybe"].kind(), "NoneType"), is(tree["list"].kind(), "list(2)"), is(tree["tuple"].kind(), "tuple(2)");
    is(tree["map"].kind(), "dict(2)"), is(tree["any"].kind(), "tuple(2)"), is(tree["pair"].kind(), "dict(2)");
    is(tree["n"].kind(), "int"), is(tree["f"].kind(), "float"), is(tree["b"].kind(), "bool"), is(tree["word"].kind(), "str");
    is(tree["undefined"].kind(), "NoneType"), is(tree["output"].kind(), "tuple(3)");
    require(tree["type"].kind().find("TypesImpl") != std::string::npos, tree["type"].kind());
    same(tree["map"].names(), {"a b", "key"}), same(tree["any"].names(), {"sub_0", "sub_1"});
    std::vector<std::string> paths;
    for (const auto& child : tree["map"].children()) paths.push_back(child.path() + " " + child.shape());
    same(paths, {"map|a b Tensor(2)", "map|key Tensor(2)"});
    is(tree["any|sub_1.sub_0"].kind(), "int");
    const auto with = [&](const std::string& patch, const Tensor& expected) {
        auto held = session.patch(patch);
        same(std::get<0>(call({})), expected);
        require(held.counts().applied == 1, patch);
    };
    with("list|sub_0=replace:10", y(sum + 9, 2, 0.5, 8, -1));
    with("tuple|sub_0=add:1", y(sum + 2, 2, 0.5, 8, -1));
    with("tuple|sub_1=add:1", y(sum + 3, 2, 0.5, 8, -1));
    with("map|key=zero", y(sum - 4, 2, 0.5, 8, -1));
    with("pair|left=zero", y(sum - 6, 2, 0.5, 8, -1));
    with("any|sub_0=zero", y(sum - 15, 2, 0.5, 8, -1));
    with("any|sub_1.sub_0=replace:1", y(sum - 10, 2, 0.5, 8, -1));
    with("n=replace:3", y(sum, 3, 0.5, 8, -1));
    with("f=add:1", y(sum, 2, 1.5, 8, -1));
    with("b=replace:false", y(sum, 2, 0.5, 8, 1));
    with("output|sub_0=replace:7", one(7));
    {  // a list inside the output, and a number
        auto set = session.patches({gp::replace("output|sub_1.sub_1", 11.0), gp::replace("output|sub_2", 12.0)});
        const auto [first, list, f] = call({});
        same(list[1], one(11)), same(list[0], one(1));
        require(f == 12.0, "a number of the output");
    }
    {  // None becomes a tensor
        auto patch = session.patch(gp::custom("maybe", [&](const Tensor& t) { return t.defined() ? t : one(100); }));
        same(std::get<0>(call({})), y(sum + 100, 2, 0.5, 8, -1));
    }
    {  // a value that cannot be patched raises an error, which ends the run
        auto patch = session.patch("constant=zero");
        throws<gp::Error>([&] { call({}); }, "the input constant, which is const");
    }
    same(std::get<0>(call(one(1))), y(sum + 1, 2, 0.5, 8, -1));
    auto probe = session.patch("output|sub_2=probe");
    call({});
    require(probe.value().item<double>() == 0.5 && probe.array().data<double>()[0] == 0.5, "a probe of a number");
}

// --- ways out ---

struct WayImpl : torch::nn::Module {
    WayImpl() : linear(register_module("linear", Linear(4, 4))) {}
    Tensor forward(Tensor x, int64_t depth, const std::string& way) {
        gp::Scope scope(this, {{"x", x}, {"depth", depth}});
        if (way == "early") return x;
        if (way == "throw") throw std::logic_error("the model's own");
        x = gp::call(linear, x);
        if (depth > 0) x = forward(x, depth - 1, way);
        return scope.output(x);
    }
    Linear linear;
};
TORCH_MODULE(Way);

struct OuterImpl : torch::nn::Module {
    OuterImpl() : way(register_module("way", Way())) {}
    Tensor forward(Tensor x, const std::string& how) {
        gp::Scope scope(this, {{"x", x}});
        try {
            x = way(x, 0, how);
        } catch (const std::logic_error&) {
            x = x + 1;
        }
        return scope.output(x * 2);
    }
    Way way;
};
TORCH_MODULE(Outer);

void ways_out() {
    Outer outer;
    const auto x = torch::randn({2, 4});
    gp::Session session;
    gp::Root root(outer, "Outer"), inner(outer->way, "Way");
    const auto tree = recorded(session, [&] {
        same(outer(x, "throw"), (x + 1) * 2);
        same(outer(x, "early"), x * 2);
        same(outer(x, ""), outer->way->linear(x) * 2);
    });
    same(tree.names(), {"x", "way", "add", "mul", "output"});
    same(tree["way"].names(), {"x", "depth", "linear", "output"});
    {  // after the exception, the caller's scope is open again
        auto patch = session.patch(gp::replace("mul", 3.0));
        same(outer(x, "throw"), torch::full({2, 4}, 3.0));
    }
    {  // a patch that cannot be applied to an input ends the run; the next run works as usual
        auto patch = session.patch(gp::zero("way.x").slice("[7]"));
        throws<gp::Error>([&] { outer(x, ""); }, "way.x");
        patch.remove();
        same(outer(x, "early"), x * 2);
    }
    // A module may call itself. A root that is called inside another root's run is part of that run; alone, it begins a run.
    const auto alone = [&] {
        auto recording = session.recording();
        outer->way(x, 2, "");
    };
    alone();
    const auto way = session.graphs()["Way"];
    same(way.names(), {"x", "depth", "linear", "Way", "output"});
    same(way["Way.Way"].names(), {"x", "depth", "linear", "output"});
    auto patch = session.patch(gp::zero("Way.Way.linear.output"));
    same(outer->way(x, 2, ""), torch::zeros({2, 4}));
}

void strangers() {
    // A module that is not registered, one that was replaced, one that was added later, and modules that are gone.
    struct HolderImpl : torch::nn::Module {
        HolderImpl() : part(register_module("part", Linear(4, 4))), stranger(4, 4) {}
        Tensor forward(Tensor x) {
            gp::Scope scope(this, {{"x", x}});
            x = gp::call(part, x);
            return scope.output(gp::call(stranger, x));
        }
        Linear part, stranger;
    };
    auto holder = std::make_shared<HolderImpl>();
    const auto x = torch::randn({2, 4});
    gp::Session session;
    auto root = std::make_unique<gp::Root>(holder, "Holder");
    throws<gp::Error>([&] { gp::Root again(holder, "Again"); }, "\"Holder\"");
    const auto run = [&] { holder->forward(x); };
    auto tree = recorded(session, run);
    same(tree.names(), {"x", "part", "Linear", "output"});
    require(session.notes().size() == 1 && session.notes()[0].find("register_module") != std::string::npos, "it is said");
    holder->register_module("late", holder->stranger);
    holder->part = holder->replace_module("part", Linear(4, 4));
    tree = recorded(session, run);
    same(tree.names(), {"x", "part", "late", "Linear", "output"});
    for (const char* path : {"part.weight", "late.weight"}) { // parameters that came later are patched too
        auto patch = session.patch(std::string(path) + "=zero");
        holder->forward(x);
        const auto y = holder->forward(x);
        patch.remove();
        const auto zeroed = std::string(path) == "part.weight" ? holder->stranger(holder->part->bias.expand({2, 4}))
                                                               : holder->stranger->bias.expand({2, 4});
        same(y, zeroed);
    }
    holder->to(torch::kDouble);
    {
        auto patch = session.patch("part.weight=zero");
        same(holder->forward(x.to(torch::kDouble)), holder->stranger(holder->part->bias.expand({2, 4})));
        holder->to(torch::kFloat);
    }
    // The module is gone, and new ones may get its address. They must not get its names.
    holder.reset();
    for (int i = 0; i < 50; ++i) {
        auto mlp = std::make_shared<MlpImpl>();
        session.set_recording(true);
        mlp->forward(x);
        session.set_recording(false);
    }
    same(session.graphs()["Mlp"].names(), {"x", "up", "relu", "down", "output"});
    root.reset();
    // A module that no shared_ptr owns.
    MlpImpl local;
    gp::Root on_stack(local, "Local");
    recorded(session, [&] { local.forward(x); });
    same(session.graphs()["Local"].names(), {"x", "up", "relu", "down", "output"});
}

void runs() {
    const auto x = torch::randn({2, 4}), w = torch::randn({4, 4});
    Mlp mlp;
    gp::Session session;
    const auto encode = [&](Tensor in) {
        gp::Run run("encoder", {{"x", in}});
        return run.output(torch::relu(in.matmul(w)));
    };
    const auto expected = torch::relu(x.matmul(w));
    auto tree = recorded(session, [&] { same(encode(x), expected); });
    same(tree.names(), {"x", "matmul", "relu", "output"});
    {
        auto set = session.patches({gp::zero("matmul").slice("[0]"), gp::add("output", 1)});
        auto product = x.matmul(w);
        product[0] = 0;
        same(encode(x), torch::relu(product) + 1);
    }
    recorded(session, [&] {
        gp::Run run("pipeline");
        mlp(encode(x));
    });
    tree = session.graphs()["pipeline"];
    same(tree.names(), {"encoder", "Mlp"});
    same(tree["Mlp"].names(), {"x", "up", "relu", "down", "output"});
    // In a run that was begun by the C ABI, modules are scopes.
    session.set_recording(true);
    require(gp_run_begin("by hand") == GP_STATUS_OK, gp_last_error());
    mlp(x);
    gp_run_end();
    session.set_recording(false);
    same(session.graphs()["by hand"].names(), {"Mlp"});
}

void threads() {
    Net net;
    gp::Session session;
    gp::Root root(net, "Net");
    const auto x = torch::randn({3, 4});
    const auto bare = net(x);
    recorded(session, [&] { net(x); });
    auto all = session.patch(gp::add("output", 1));
    std::atomic<int> wrong{0}, runs{0};
    const auto work = [&](int own) {
        torch::NoGradGuard no_grad;
        for (int i = 0; i < 40; ++i) {
            const auto input = x + own;
            auto patch = session.patch(gp::replace("linear.output", torch::full({3, 4}, own * 1.0)).this_thread());
            auto probe = session.patch(gp::probe("linear_1.input").this_thread());
            const auto y = net(input);
            patch.remove();
            wrong += !torch::equal(probe.value(), torch::full({3, 4}, own * 1.0));
            (void)y;
            ++runs;
        }
    };
    std::vector<std::thread> workers;
    for (int own = 0; own < 4; ++own) workers.emplace_back(work, own);
    for (auto& worker : workers) worker.join();
    require(wrong == 0 && runs == 160, "each thread has its own patches");
    same(net(x), bare + 1);
}

void any_names() {
    // Names of several arguments, own names, pointers of all kinds, modules behind AnyModule, a nested Sequential.
    torch::nn::GRU gru(torch::nn::GRUOptions(4, 4));
    torch::nn::Bilinear bilinear(4, 4, 4);
    torch::nn::AnyModule any(Linear(4, 4));
    struct PlainImpl : torch::nn::Module {
        Tensor forward(const Tensor& a, const Tensor& b) { return a * b; }
    };
    auto plain = std::make_shared<PlainImpl>();
    struct NestedImpl : torch::nn::SequentialImpl {
        using SequentialImpl::SequentialImpl;
        Tensor forward(Tensor x) { return gp::sequence(*this, x); }
    };
    torch::nn::Sequential outer(std::make_shared<NestedImpl>(Linear(4, 4), torch::nn::Tanh()),
                                torch::nn::GRU(torch::nn::GRUOptions(4, 4)));
    const auto x = torch::randn({3, 2, 4});
    gp::Session session;
    const auto tree = recorded(session, [&] {
        gp::Run run("all");
        same(std::get<0>(gp::call(gru, x)), std::get<0>(gru(x)));
        same(gp::call(bilinear, x, x), bilinear(x, x));
        same(gp::call(any, x), any.get<torch::nn::LinearImpl>().forward(x));
        same(gp::call(plain, x, x), x * x);
        same(gp::call(plain, {"a", "b"}, x, x), x * x);
        const auto [y, h] = gp::sequence<std::tuple<Tensor, Tensor>>(*outer, x);
        const auto [y2, h2] = outer->forward<std::tuple<Tensor, Tensor>>(x);
        same(y, y2), same(h, h2);
    });
    const auto has = [&](const std::string& scope, const std::string& first, const std::string& second) {
        const auto names = tree[scope].names();
        require(!names.empty() && names[0] == first && (second.empty() || names[1] == second), tree[scope].tree());
    };
    has("GRU", "input", ""), has("Bilinear", "input1", "input2"), has("Linear", "input", ""), has("Plain", "a", "b");
    has("Sequential", "input", "sub_0"), has("Sequential.sub_0", "input", "sub_0"),
        has("Sequential.sub_0.sub_1", "input", "tanh");
    is(tree["Sequential.sub_1.output"].kind(), "tuple(2)");
    is(tree["Sequential.output"].kind(), "tuple(2)");
    throws<gp::Error>(
        [&] {
            session.set_recording(true);
            gp::sequence(*outer, x);
        },
        "std::tuple");
    session.set_recording(false);
}

void off() {
    // Without recording and patches, modules compute the same, and nothing is recorded.
    Net net;
    const auto x = torch::randn({3, 4});
    const auto bare = net(x);
    gp::Root root(net, "Net");
    same(net(x), bare);
    gp::Session session;
    same(net(x), bare);
    require(session.graphs().empty() && session.runs() == 0 && session.notes().empty(), "nothing was recorded");
    throws<gp::Error>([] { gp::Session second; }, "another session");
    throws<gp::Error>([&] { session.graphs()["Net"]; }, "no graph of \"Net\"");
    throws<gp::Error>([&] { auto patch = session.patch("a..b=zero"); }, "a..b");
    recorded(session, [&] { net(x); });
    try {
        auto set = session.patches({gp::zero("nowhere"), gp::zero("linear.output"), gp::zero("linear.nothing")});
        require(false, "bad paths are refused");
    } catch (const gp::Error& error) {
        require(error.status() == GP_STATUS_PATH, "the status");
        const std::string what = error.what();
        require(what.find("nowhere") != std::string::npos && what.find("linear.nothing") != std::string::npos, what);
    }
    same(net(x), bare);
    // A patch outlives its session.
    auto patch = std::make_unique<gp::Patch>(session.patch(gp::zero("output")));
    gp::Session moved = std::move(session);
    same(net(x), torch::zeros_like(bare));
    {
        gp::Session gone = std::move(moved);
    }
    same(net(x), bare);
    patch.reset();
    gp::Session next;
    require(next.graphs().empty(), "the next one is new");
}

// Writes into what it is given.
struct WriterImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x.mul_(3);
        return scope.output(x);
    }
};
TORCH_MODULE(Writer);

struct WritingImpl : torch::nn::Module {
    WritingImpl() : writer(register_module("writer", Writer())) {}
    std::vector<Tensor> forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        auto y = torch::relu(x);
        auto left = y.slice(1, 0, 2);
        left.select(0, 0).fill_(7); // two views deep
        y.select(0, 1).fill_(2); // writes the memory that `left` shows, where the patch has changed the copy
        auto written = writer->forward(left);
        return scope.output(std::vector<Tensor>{y * 1, left * 1, written * 1});
    }
    Writer writer;
};
TORCH_MODULE(Writing);

// Writes into a patched copy also reach the memory of the original. The change by the patch does not.
void written_views() {
    Writing net;
    const auto x = torch::ones({3, 4});
    const auto bare = net->forward(x.clone());
    gp::Session session;
    gp::Root root(net, "Writing");
    const auto expect = [&](const std::vector<Tensor>& expected) {
        const auto found = net->forward(x.clone());
        for (size_t i = 0; i < expected.size(); ++i) same(found[i], expected[i]);
    };
    for (const char* path : {"slice_1", "writer.x", "writer.output", "relu", "select", "x"}) {
        auto patch = session.patch(gp::add(path, -0.0));
        expect(bare);
        require(patch.counts().applied == 1, path);
    }
    auto patch = session.patch(gp::add("slice_1", 10));
    const auto left = torch::tensor({7.0, 7.0, 11.0, 11.0, 11.0, 11.0}).view({3, 2}) * 3;
    auto y = torch::ones({3, 4});
    y[1] = 2;
    y.slice(1, 0, 2).copy_(left);
    expect({y, left, left});
}

// A note names the patch that no run has reached, and not the one that a run has.
void missed() {
    Net net;
    const auto x = torch::randn({3, 4});
    gp::Session session;
    gp::Root root(net, "Net");
    {
        auto met = session.patch(gp::add("first_name.output", 1));
        auto later = session.patch(gp::add("first_name.output", 1).runs("5.."));
        net(x);
        require(!met.missed() && later.missed(), "runs 5 and later did not come");
    }
    same(session.notes(), {"a patch never matched: first_name.output: no run came by there"});
}

struct AttentionImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(at::scaled_dot_product_attention(x, x, x, {}, 0.0, true));
    }
};
TORCH_MODULE(Attention);

void the_inside_of_attention() {
    Attention attention;
    const auto x = torch::randn({1, 2, 5, 4});
    const auto bare = attention(x);
    gp::Session session;
    gp::Root root(attention, "Attention");
    const std::string name = "scaled_dot_product_attention";
    throws<gp::Error>([&] { session.show_inside("softmax"); }, "only `attention`");
    session.show_inside("attention");
    const auto tree = recorded(session, [&] { same(attention(x), bare); });
    same(tree[name].names(), {"query", "key", "value", "scores", "mask", "masked_scores", "probabilities", "output"});
    auto patch = session.patch(name + ".probabilities[:, 1]=zero");
    const auto found = attention(x);
    patch.remove();
    require(found.select(1, 1).abs().max().item<float>() == 0, "the second head reads nothing");
    require(at::allclose(found.select(1, 0), bare.select(1, 0), 0, 5e-6), "the first head is the same but for rounding");
    same(attention(x), bare);
}

const std::map<std::string, void (*)()> kChecks = {
    {"names", names},
    {"values", values},
    {"gradients", gradients},
    {"functions", functions},
    {"types", types},
    {"ways_out", ways_out},
    {"strangers", strangers},
    {"runs", runs},
    {"threads", threads},
    {"throwing_callbacks", throwing_callbacks},
    {"any_names", any_names},
    {"off", off},
    {"written_views", written_views},
    {"missed", missed},
    {"the_inside_of_attention", the_inside_of_attention},
};

} // namespace

int main(int argc, char** argv) {
    torch::GradMode::set_enabled(false);
    torch::manual_seed(0);
    return checked(argc, argv, kChecks);
}
