// Modules that are not called as others are: by `forward` of a module below, by another method, without being registered, or
// in some runs only. Each check has models of its own. Values are compared with what plain libtorch computes.
//
//   calls CASE         runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>

#include <algorithm>
#include <functional>
#include <future>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

gp::Node recorded(gp::Session& session, const std::function<void()>& body) {
    auto recording = session.recording();
    body();
    const gp::Graphs graphs = session.graphs();
    return graphs[graphs.size() - 1];
}

// A patch at this path gives `expected`, in each of two runs.
void patched(gp::Session& session, const gp::Spec& spec, const std::function<Tensor()>& run, const Tensor& expected) {
    auto patch = session.patch(spec);
    for (int i = 0; i < 2; ++i) same(run(), expected);
    require(patch.counts().applied >= 2 && patch.counts().failed == 0, "the patch was applied");
}

struct BlockImpl : torch::nn::Module {
    BlockImpl() : linear(register_module("linear", Linear(3, 3))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(gp::call(linear, x).tanh());
    }
    // Another way into the module.
    Tensor encode(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(gp::call(linear, x).relu());
    }
    // One that says nothing of itself.
    Tensor silent(Tensor x) { return gp::call(linear, x).exp(); }
    Linear linear;
};
TORCH_MODULE(Block);

// Calls `forward` of the modules below it, and a module of torch::nn without gp::call.
struct DirectImpl : torch::nn::Module {
    DirectImpl() : block(register_module("block", Block())), plain(register_module("plain", Linear(3, 3))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(plain->forward(block->forward(x)) + block->encode(x));
    }
    Block block;
    Linear plain;
};
TORCH_MODULE(Direct);

Tensor linear(const Linear& module, const Tensor& x, double weight = 0, double bias = 0) {
    return torch::addmm(module->bias + bias, x, (module->weight + weight).t());
}

void direct_forward() {
    Direct net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Direct");
    const auto run = [&] { return net(x); };
    const auto bare = run();
    const auto tree = recorded(session, [&] { same(run(), bare); });
    // Which of the two calls in the sum comes first is up to the compiler.
    require(tree["block"].is_scope() && tree["block_1"].is_scope() && !tree["plain_weight"].is_scope(), tree.tree());
    const std::string encode = tree["block.linear"].is_scope() && tree["block"].names()[2] == "relu" ? "block" : "block_1";
    const std::string forward = encode == "block" ? "block_1" : "block";
    const auto hidden = [&](double add) { return linear(net->block->linear, x).tanh() + add; };
    const auto encoded = linear(net->block->linear, x).relu();
    patched(session, gp::add(forward + ".output", 1), run, linear(net->plain, hidden(1)) + encoded);
    patched(session, gp::zero(encode + ".output"), run, linear(net->plain, hidden(0)));
    patched(session, gp::add("plain_weight", 1), run, linear(net->plain, hidden(0), 1) + encoded);
    patched(session, gp::zero(encode + ".linear.output"), run, linear(net->plain, hidden(0)));
    same(run(), bare);
}

void other_methods() {
    Block block;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(block, "Block");
    // A method with a Scope line is a call of the module.
    const auto encode = [&] { return block->encode(x); };
    const auto bare = encode();
    recorded(session, [&] { same(encode(), bare); });
    patched(session, gp::zero("Block:linear.weight"), encode, block->linear->bias.expand({2, 3}).relu());
    patched(session, gp::add("Block:output", 1), encode, bare + 1);
    // `forward` of a module below the root is no run of the root's: the patch is reported.
    {
        auto patch = session.patch(gp::zero("Block:linear.output"));
        same(block->silent(x), linear(block->linear, x).exp());
        require(patch.missed(), "no run of Block came by");
    }
    same(session.notes(),
         {"torch::nn::Linear: called outside of the runs of Block, of which it is linear: the call is a run of the "
          "root Linear, and patches below Block do not hold in it. What a run calls on other threads is outside "
          "of it, too",
          "a patch never matched: Block:linear.output: no run came by there"});
    // What the method calls is a root of its own, by the name of its class.
    recorded(session, [&] { block->silent(x); });
    patched(session, gp::zero("Linear:output"), [&] { return block->silent(x); }, torch::ones({2, 3}));
}

// Holds modules in a plain struct, and one as a member that is not registered.
struct PlainImpl : torch::nn::Module {
    struct Parts {
        Linear first{3, 3}, second{3, 3};
        torch::nn::Sequential sequence{Linear(3, 3), torch::nn::ReLU()};
    };
    PlainImpl() : linear(register_module("Linear", Linear(3, 3))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x = gp::call(parts.first, x);
        x = gp::call(parts.second, x);
        x = gp::call(parts.sequence, x);
        x = block->forward(x);
        return scope.output(gp::call(linear, x));
    }
    Parts parts;
    Block block;
    Linear linear; // by the name that the unregistered ones would get
};
TORCH_MODULE(Plain);

// Calls of a part of a root that are no part of a run of it.
void outside_of_runs() {
    const std::function<Tensor(Direct&, const Tensor&)> ways[] = {
        [](Direct& net, const Tensor& x) { return net->block->forward(x); },
        [](Direct& net, const Tensor& x) {
            return std::async(std::launch::async,
                              [&] {
                                  torch::NoGradGuard none;
                                  return net->block(x);
                              })
                .get();
        },
    };
    const auto x = torch::randn({2, 3});
    for (const auto& way : ways) {
        Direct net;
        gp::Session session;
        gp::Root root(net, "Direct");
        const auto bare = way(net, x);
        const auto patch = session.patch(gp::zero("block.output"));
        net(x);
        require(patch.counts().applied == 1, "the run has it");
        for (int call = 0; call < 2; ++call) same(way(net, x), bare);
        const std::vector<std::string> notes = session.notes();
        require(notes.size() == 1 &&
                    notes[0].find("Block: called outside of the runs of Direct, of which it is block: the call is "
                                  "a run of the root Block") != std::string::npos,
                "it is said once");
        // In the root that it is, it can be patched.
        const auto own = session.patch(gp::add("Block:output", 1));
        same(way(net, x), bare + 1);
    }
    Direct net;
    gp::Session session;
    gp::Root root(net, "Direct"), part(net->block, "Part");
    recorded(session, [&] { net(x), net->block(x); });
    require(session.notes().empty(), "a part that is named as a root of its own is meant to be one");
}

// A module that no shared_ptr holds is called by a root, whose patches never reach its parameters.
void unowned() {
    struct HoldsImpl : torch::nn::Module {
        Tensor forward(Tensor x) {
            gp::Scope scope(this, {{"x", x}});
            return scope.output(gp::call(part, x));
        }
        torch::nn::LinearImpl part{3, 3};
    };
    const auto net = std::make_shared<HoldsImpl>();
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Holds");
    const auto bare = net->forward(x);
    auto patch = session.patch(gp::add("Linear.bias", 1));
    for (int run = 0; run < 2; ++run) same(net->forward(x), bare);
    require(patch.counts().applied == 0, "it has not been applied");
    require(session.notes()[0].find("its parameters are not known, since no shared_ptr holds it") != std::string::npos,
            "it is said");
}

void unregistered() {
    Plain net;
    const auto x = torch::randn({2, 3});
    {
        // Also where nothing is recorded, the parameters are known from the second run on.
        gp::Session session;
        gp::Root root(net, "Plain");
        const auto bare = net(x);
        const auto patch = session.patch(gp::add("Block.linear.bias", 1));
        same(net(x), bare);
        const auto patched = net(x);
        require(patch.counts().applied == 1 && !torch::equal(patched, bare), "the second run");
        const Tensor bias = net->block->linear->bias, before = bias.clone();
        bias.add_(1);
        session.detach();
        same(patched, net(x));
        bias.copy_(before);
        require(session.notes()[0].find("known from the next run on") != std::string::npos, "it is said");
    }
    {
        // Another root that runs call without having it below themselves.
        gp::Session session;
        gp::Root root(net, "Plain"), other(net->block, "Other");
        const auto bare = net(x);
        const auto patch = session.patch(gp::add("Plain:Other.linear.bias", 1));
        same(net(x), bare);
        require(!torch::equal(net(x), bare) && patch.counts().applied == 1, "the second run");
        const auto said = session.notes();
        require(std::any_of(said.begin(), said.end(),
                            [](const std::string& note) {
                                return note.find("it is named \"Other\" here, and its parameters are known from the "
                                                 "next run on") != std::string::npos;
                            }),
                "it is said");
    }
    unowned();
    gp::Session session;
    gp::Root root(net, "Plain");
    const auto run = [&] { return net(x); };
    // The model by hand, with numbers that are added to its weights and biases.
    struct Added {
        double first = 0, second = 0, inner = 0, block = 0, own = 0;
    };
    const auto by_hand = [&](Added add) {
        auto y = linear(net->parts.first, x, add.first);
        y = linear(net->parts.second, y, add.second);
        y = linear(net->parts.sequence->ptr<torch::nn::LinearImpl>(0), y, 0, add.inner);
        y = linear(net->block->linear, torch::relu(y), add.block).tanh();
        return linear(net->linear, y, add.own);
    };
    const auto bare = run();
    same(bare, by_hand({}));
    recorded(session, run);
    const auto tree = recorded(session, run); // their parameters are known from the second run on
    same(tree.names(), {"x", "Linear", "Linear_1", "Sequential", "Block", "Linear_2", "output"});
    for (const char* scope : {"Linear", "Linear_1", "Sequential.sub_0", "Block.linear", "Linear_2"})
        require(!tree[scope + ".weight"s].is_scope() && !tree[scope + ".bias"s].is_scope(), tree.tree());
    patched(session, gp::add("Linear.weight", 1), run, by_hand({1}));
    patched(session, gp::add("Linear_1.weight", 1), run, by_hand({0, 1}));
    patched(session, gp::add("Sequential.sub_0.bias", 1), run, by_hand({0, 0, 1}));
    patched(session, gp::add("Block.linear.weight", 1), run, by_hand({0, 0, 0, 1}));
    patched(session, gp::add("Linear_2.weight", 1), run, by_hand({0, 0, 0, 0, 1}));
    same(run(), bare);
    // Another module takes the place of one, which lives no longer for having been seen.
    std::weak_ptr<torch::nn::Module> gone = net->parts.first.ptr();
    net->parts.first = Linear(3, 3);
    require(gone.expired(), "nobody holds the module");
    recorded(session, run);
    patched(session, gp::add("Linear.weight", 1), run, by_hand({1}));
}

// Goes another way in each call.
struct BranchesImpl : torch::nn::Module {
    BranchesImpl() : block(register_module("block", Linear(3, 3))) {}
    Tensor forward(Tensor x, int way) {
        gp::Scope scope(this, {{"x", x}});
        if (way == 2) return scope.output(x);
        auto y = gp::call(block, way == 0 ? torch::relu(x) : torch::tanh(x));
        return scope.output(y + x);
    }
    Linear block;
};
TORCH_MODULE(Branches);

void branches() {
    Branches net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Branches");
    const auto tree = recorded(session, [&] {
        for (int run = 0; run < 6; ++run) net(x, run % 3);
    });
    const std::string code = tree.code();
    for (const char* line : {"relu = aten.relu(x)  # in some runs", "tanh = aten.tanh(x)  # in some runs",
                             "block = self.block(relu)  # in some runs", "# or, in other runs: block = self.block(tanh)",
                             "return add", "# or, in other runs: return x"})
        require(code.find(line) != std::string::npos, line + " in\n"s + code);
    patched(session, gp::zero("tanh"), [&] { return net(x, 1); }, net->block->bias + x);
    {
        auto patch = session.patch(gp::zero("tanh"));
        same(net(x, 0), linear(net->block, torch::relu(x)) + x);
        same(net(x, 2), x);
    }
    same(session.notes(), {"a patch never matched: tanh: no run came by there"});
}

const std::map<std::string, void (*)()> kChecks = {
    {"branches", branches},           {"direct_forward", direct_forward},
    {"other_methods", other_methods}, {"outside_of_runs", outside_of_runs},
    {"unregistered", unregistered},
};

} // namespace

int main(int argc, char** argv) {
    torch::GradMode::set_enabled(false);
    torch::manual_seed(0);
    return checked(argc, argv, kChecks);
}
