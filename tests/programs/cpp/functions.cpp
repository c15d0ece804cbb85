// Patches around and inside of functions that have a backward of their own (torch::autograd::Function): a gradient is that of
// the patched values, or refused. Values are compared with what plain libtorch computes.
//
//   functions CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>

#include "check.hpp"
#include "square.hpp"

namespace gp = graphpatch;
using torch::Tensor;

namespace {

struct SquaresImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(Square::apply(x.add(1)).mul(3));
    }
};
TORCH_MODULE(Squares);

// The function's result is also the module's result, so that no operation follows it.
struct BareImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return Square::apply(x);
    }
};
TORCH_MODULE(Bare);

struct Tracked : torch::nn::Module {
    // The scale is computed without autograd, so that it has no part in the gradient, with or without a patch.
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        Tensor scale;
        const auto squared = Square::apply(x);
        {
            torch::NoGradGuard none;
            scale = squared.exp().mean();
        }
        return scope.output(squared * scale);
    }
};

// The weight is read outside of the function first, where its patched copy is made.
struct WeightedImpl : torch::nn::Module {
    WeightedImpl() : w(register_parameter("w", torch::tensor({1.0, 2.0, -3.0}))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(x * w + Square::apply(w));
    }
    Tensor w;
};
TORCH_MODULE(Weighted);

Tensor numbers() { return torch::tensor({1.0, -2.0, 3.0}); }

Tensor leaf() { return numbers().requires_grad_(); }

template <class Module>
Tensor gradient(Module& module, const Tensor& x) {
    return torch::autograd::grad({module->forward(x).sum()}, {x})[0];
}

bool noted(gp::Session& session, const std::string& words) {
    for (const auto& note : session.notes())
        if (note.find(words) != std::string::npos) return true;
    return false;
}

const char* const kWhy = "has no part in a gradient";

// The patched value is used. Only a program that asks for a gradient gets an error.
void inside() {
    Squares net;
    gp::Session session;
    gp::Root root(net, "Squares");
    const auto doubled = (numbers() + 1) * 2;
    for (const char* path : {"mul", "mul_1", "div"}) {
        auto patch = session.patch(gp::add(path, 1.0));
        const auto x = leaf();
        const auto y = net->forward(x);
        const auto left = std::string(path) == "mul"     ? (doubled + 1) * (numbers() + 1) / 2
                          : std::string(path) == "mul_1" ? (doubled * (numbers() + 1) + 1) / 2
                                                         : doubled * (numbers() + 1) / 2 + 1;
        same(y.detach(), left * 3);
        require(patch.counts().applied == 1, path);
        throws<std::exception>([&] { y.sum().backward(); }, kWhy);
        require(!x.grad().defined(), "no gradient arrived");
        // Without gradients nothing is refused.
        torch::NoGradGuard none;
        same(net->forward(numbers()), left * 3);
    }
    const auto x = leaf();
    same(gradient(net, x), 6 * (numbers() + 1));
}

// With GP_ON_ERROR_SKIP the program goes on, and a note says that the gradient lacks the patch.
void noted_only() {
    Squares net;
    gp::Session session;
    gp::Root root(net, "Squares");
    session.on_error(GP_ON_ERROR_SKIP);
    auto patch = session.patch(gp::add("mul", 1.0));
    const auto x = leaf();
    const auto y = net->forward(x);
    require(!noted(session, kWhy), "nobody has asked for a gradient");
    y.sum().backward();
    require(x.grad().defined() && noted(session, kWhy), "the gradient came, and a note");
}

void last() {
    Bare net;
    gp::Session session;
    gp::Root root(net, "Bare");
    const auto x = leaf();
    {
        auto patch = session.patch(gp::zero("mul_1"));
        const auto y = net->forward(x);
        same(y.detach(), torch::zeros(3));
        throws<std::exception>([&] { y.sum().backward(); }, kWhy);
    }
    same(gradient(net, x), 2 * numbers());
}

void around() {
    Squares net;
    gp::Session session;
    gp::Root root(net, "Squares");
    auto before = session.patch(gp::add("add", 1.0));
    auto after = session.patch(gp::add("mul_2", 1.0));
    const auto x = leaf();
    same(net->forward(x).detach(), (numbers() + 2).square() * 3 + 1);
    same(gradient(net, x), 6 * (numbers() + 2));
    auto probe = session.probe("mul");
    same(gradient(net, x), 6 * (numbers() + 2));
    require(session.notes().empty(), "there is nothing to say");
}

// A patched parameter is refused inside as any other value, though its copy is older than the function.
void parameter() {
    Weighted net;
    gp::Session session;
    gp::Root root(net, "Weighted");
    auto patch = session.patch(gp::add("w", 1.0));
    const auto w = net->w.detach();
    const auto y = net->forward(numbers());
    same(y.detach(), numbers() * (w + 1) + (w + 1).square());
    throws<std::exception>([&] { y.sum().backward(); }, kWhy);
    torch::NoGradGuard none;
    same(net->forward(numbers()), numbers() * (w + 1) + (w + 1).square());
}

// A patch of a value that autograd has not seen is applied, and the gradient stays right.
void without_autograd() {
    const auto net = std::make_shared<Tracked>();
    const auto x = leaf();
    gp::Session session;
    gp::Root root(*net, "Tracked");
    auto patch = session.patch(gp::replace("exp", 2.0));
    same(net->forward(x).detach(), numbers().square() * 2);
    same(gradient(net, x), 4 * numbers());
    require(session.notes().empty(), "there is nothing to say");
}

const std::map<std::string, void (*)()> kChecks = {
    {"inside", inside}, {"noted_only", noted_only}, {"last", last},
    {"around", around}, {"parameter", parameter},   {"without_autograd", without_autograd},
};

}  // namespace

int main(int argc, char** argv) { return checked(argc, argv, kChecks); }
