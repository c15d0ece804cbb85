// Addresses that are used again, operators whose body calls a module, and functions of patches that run a model: each check on
// models of its own. Values are compared with what plain libtorch computes.
//
//   reused CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>
#include <torch/library.h>
#include <torch/script.h>

#include <algorithm>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

gp::Node last(gp::Session& session) {
    const gp::Graphs graphs = session.graphs();
    return graphs[graphs.size() - 1];
}

// Calls one module, whatever it is.
struct HolderImpl : torch::nn::Module {
    explicit HolderImpl(Linear child) : child(register_module("child", std::move(child))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(gp::call(child, x).mul(3));
    }
    Linear child;
};
TORCH_MODULE(Holder);

// A root and all modules are freed between runs, so that the next ones get their addresses.
void models() {
    const auto x = torch::randn({2, 4});
    gp::Session session;
    std::vector<const void*> addresses;
    for (int turn = 0; turn < 20; ++turn) {
        Holder holder(Linear(4, turn % 2 ? 4 : 6));
        gp::Root root(holder, "Holder" + std::to_string(turn % 2));
        addresses.push_back(holder.get());
        const auto inner = holder->child->forward(x);
        auto weight = session.probe("child.weight");
        auto bias = session.patch(gp::add("child.bias", 1));
        auto output = session.probe("child.output");
        const auto expected = torch::addmm(holder->child->bias + 1, x, holder->child->weight.t());
        same(holder(x), expected.mul(3));
        same(weight.value(), holder->child->weight);
        same(output.value(), expected);
        bias.enable(false);
        same(holder(x), inner.mul(3));
    }
    std::sort(addresses.begin(), addresses.end());
    require(std::unique(addresses.begin(), addresses.end()) != addresses.end(), "an address was used again");
}

// A module below a root that lives on is replaced between runs.
void replaced_modules() {
    const auto x = torch::randn({2, 4});
    Holder holder(Linear(4, 4));
    gp::Session session;
    gp::Root root(holder, "Holder");
    for (int turn = 0; turn < 20; ++turn) {
        holder->child = nullptr;
        holder->child = holder->replace_module("child", Linear(4, 4 + turn % 3));
        auto weight = session.probe("child.weight");
        auto zero = session.patch(gp::zero("child.weight"));
        const auto bias = holder->child->bias.expand({2, 4 + turn % 3});
        same(holder(x), bias.mul(3));
        same(weight.value(), holder->child->weight);
    }
}

// A value gets the address of a parameter that was freed while the run goes on.
struct FreesImpl : torch::nn::Module {
    FreesImpl() : weight(register_parameter("weight", torch::ones({4}))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        x = x.mul(weight);
        // Nobody but the run knows the old parameter any more.
        weight = parameters_["weight"] = torch::full({4}, 2.0);
        for (int turn = 0; turn < 30; ++turn) {
            const auto other = torch::full({4}, 1.0 + turn);
            x = x.add(other).div(other);
        }
        return scope.output(x);
    }
    Tensor weight;
};
TORCH_MODULE(Frees);

void parameters() {
    const auto x = torch::randn({2, 4});
    Frees bare;
    auto expected = x.mul(torch::full({4}, 5.0));
    for (int turn = 0; turn < 30; ++turn) expected = expected.add(1.0 + turn).div(1.0 + turn);
    const auto plain = bare->forward(x);
    gp::Session session;
    for (int turn = 0; turn < 5; ++turn) {
        Frees frees;
        gp::Root root(frees, "Frees");
        same(frees(x), plain);
        Frees again;
        gp::Root other(again, "Again");
        auto patch = session.patch(gp::replace("weight", 5));
        same(again(x), expected);
        require(patch.counts().applied == 1, "one value is the parameter");
    }
}

// An operator is registered, taken back, and registered with another meaning, by the same name.
struct TurnsImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("reused::turn", "");
        torch::jit::Stack stack{x};
        if (op.schema().arguments().size() == 2) stack.emplace_back(2.0);
        op.callBoxed(&stack);
        const auto first = stack[0].isTensorList() ? stack[0].toTensorVector()[1] : stack[0].toTensor();
        return scope.output(first.mul(10));
    }
};
TORCH_MODULE(Turns);

void operators() {
    const auto x = torch::randn({2, 4});
    Turns turns;
    for (int turn = 0; turn < 12; ++turn) {
        torch::Library library(torch::Library::DEF, "reused", std::nullopt, __FILE__, __LINE__);
        Tensor bare;
        std::string path = "turn";
        if (turn % 3 == 0) {
            library.def("turn(Tensor x) -> Tensor", [](const Tensor& x) { return x.neg(); });
            bare = x.neg();
        } else if (turn % 3 == 1) {
            library.def("turn(Tensor x, float by) -> Tensor", [](const Tensor& x, double by) { return x.mul(by); });
            bare = x.mul(2.0);
        } else {
            library.def("turn(Tensor x) -> Tensor[]", [](const Tensor& x) { return std::vector<Tensor>{x.neg(), x.exp()}; });
            bare = x.exp();
            path = "turn|sub_1";
        }
        same(turns(x), bare.mul(10));
        {
            gp::Session session;
            gp::Root root(turns, "Turns");
            auto probe = session.probe(path);
            auto patch = session.patch(gp::add(path, 1));
            same(turns(x), bare.add(1).mul(10));
            same(probe.value(), bare);
        }
        gp::Session session;
        gp::Root root(turns, "Turns");
        {
            auto recording = session.recording();
            same(turns(x), bare.mul(10));
        }
        same(last(session).names(), {"x", "turn", "mul", "output"});
    }
}

// Code of TorchScript is compiled, run and freed, and other code takes its addresses.
void scripts() {
    const auto x = torch::randn({2, 4});
    gp::Session session;
    for (int turn = 0; turn < 12; ++turn) {
        torch::jit::Module module("Scripted");
        const bool first = turn % 2 == 0;
        module.define(first ? "def forward(self, x):\n  return torch.relu(x) + 1\n"
                            : "def forward(self, y):\n  return torch.exp(y) * 2\n");
        const auto bare = first ? x.relu().add(1) : x.exp().mul(2);
        auto patch = session.patch(gp::zero(first ? "relu" : "exp"));
        const auto zero = torch::zeros_like(x);
        same(module.forward({x}).toTensor(), first ? zero.add(1) : zero.mul(2));
        require(patch.counts().applied == 1, "it was met");
        patch.enable(false);
        same(module.forward({x}).toTensor(), bare);
    }
}

// An operator calls a module.
Linear called{nullptr};

struct CallsImpl : torch::nn::Module {
    CallsImpl() : inner(register_module("inner", Linear(4, 4))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("calling::inner", "");
        return scope.output(op.typed<Tensor(const Tensor&)>().call(x).mul(10));
    }
    Linear inner;
};
TORCH_MODULE(Calls);

void operators_that_call() {
    torch::Library library(torch::Library::DEF, "calling", std::nullopt, __FILE__, __LINE__);
    library.def("inner(Tensor x) -> Tensor", [](const Tensor& x) { return gp::call(called, x).add(1); });
    const auto x = torch::randn({2, 4});
    Calls calls;
    called = calls->inner;
    const auto inner = calls->inner->forward(x);
    gp::Session session;
    gp::Root root(calls, "Calls");
    {
        auto recording = session.recording();
        same(calls(x), inner.add(1).mul(10));
    }
    // The operator begins first, and so has the first name; the module's call ends first.
    same(last(session).names(), {"x", "inner_1", "inner", "mul", "output"});
    require(last(session)["inner_1"].is_scope() && !last(session)["inner"].is_scope(), "the module is inside");
    for (const bool outer : {false, true}) {
        const std::string path = outer ? "inner" : "inner_1.output";
        auto probe = session.probe(path);
        auto patch = session.patch(gp::add(path, 2));
        same(calls(x), inner.add(3).mul(10));
        same(probe.value(), outer ? inner.add(1) : inner);
    }
    same(calls(x), inner.add(1).mul(10));
    called = nullptr;
}

// The function of a patch runs another model that has patches, and the patched model itself.
void functions() {
    const auto x = torch::randn({2, 4});
    Holder holder(Linear(4, 4)), other(Linear(4, 4));
    gp::Session session;
    gp::Root root(holder, "Holder"), another(other, "Other");
    const auto inner = holder->child->forward(x), bare = other->forward(x);
    Tensor from_other, from_itself;
    int depth = 0;
    auto patch = session.patch(gp::custom("Holder:child.output", [&](const Tensor& value) {
        if (depth++ == 0) {
            from_other = other->forward(x);
            from_itself = holder->forward(x);
        }
        --depth;
        return value + 1;
    }));
    auto add = session.patch(gp::add("Other:mul", 5));
    auto probe = session.probe("Holder:child.output");
    auto output = session.probe("Holder:output");
    same(holder(x), inner.add(1).mul(3));
    // What the function runs is not part of the run, so no patch holds there.
    same(from_other, bare);
    same(from_itself, inner.mul(3));
    same(probe.value(), inner.add(1));
    same(output.value(), inner.add(1).mul(3));
    require(patch.counts().applied == 1 && add.counts().applied == 0, "one value was patched");
    same(other(x), bare.add(5));
    {
        auto recording = session.recording();
        same(holder(x), inner.add(1).mul(3));
    }
    same(last(session).names(), {"x", "child", "mul", "output"});
    require(session.graphs().size() == 1, "only the call of the program was recorded");
}

}  // namespace

int main(int argc, char** argv) {
    torch::manual_seed(0);
    return checked(argc, argv,
                   {{"functions", functions},
                    {"models", models},
                    {"operators", operators},
                    {"operators_that_call", operators_that_call},
                    {"parameters", parameters},
                    {"replaced_modules", replaced_modules},
                    {"scripts", scripts}});
}
