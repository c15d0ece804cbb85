// Calls that are left in their middle for others on the same thread: each check on models of its own. Values are compared with
// what plain libtorch computes.
//
//   fibers CASE        runs one check; without CASE lists them
#include <graphpatch.hpp>
#include <torch/nn.h>
#include <ucontext.h>

#include <functional>
#include <optional>
#include <thread>

#include "check.hpp"

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

// Code with a stack of its own, which goes on each time that it is resumed.
class Fiber {
public:
    explicit Fiber(std::function<void(Fiber&)> body) : body_(std::move(body)), stack_(1 << 20) {}

    // Called outside: goes on with the fiber until it pauses or ends.
    void resume() {
        if (!begun_) {
            begun_ = true;
            getcontext(&own_);
            own_.uc_stack.ss_sp = stack_.data();
            own_.uc_stack.ss_size = stack_.size();
            own_.uc_link = &around_;
            starting = this;
            makecontext(&own_, &Fiber::start, 0);
        }
        swapcontext(&around_, &own_);
    }

    // Called inside: goes back to who has resumed the fiber.
    void pause() { swapcontext(&own_, &around_); }

private:
    static void start() {
        Fiber* fiber = starting;
        fiber->body_(*fiber);
    }
    static inline Fiber* starting = nullptr;

    std::function<void(Fiber&)> body_;
    std::vector<char> stack_;
    ucontext_t around_, own_;
    bool begun_ = false;
};

// Pauses between its parts if it is told how.
struct NetImpl : torch::nn::Module {
    NetImpl() : first(register_module("first", Linear(3, 3))), last(register_module("last", Linear(3, 3))) {}
    Tensor forward(Tensor x, const std::function<void()>& pause = [] {}) {
        gp::Scope scope(this, {{"x", x}});
        auto y = torch::tanh(gp::call(first, x));
        pause();
        return scope.output(torch::exp(gp::call(last, y)) + y);
    }
    Tensor by_hand(const Tensor& x, double middle, double end) {
        auto y = torch::tanh(first(x) + middle);
        return torch::exp(last(y) + end) + y;
    }
    Linear first, last;
};
TORCH_MODULE(Net);

std::function<void()> pausing(Fiber& fiber) {
    return [&fiber] {
        gp::CallsAside aside;
        fiber.pause();
    };
}

bool says(const gp::Session& session, const std::string& words) {
    for (const auto& note : session.notes())
        if (note.find(words) != std::string::npos) return true;
    return false;
}

// Patches hold in the runs of their models, also where two fibers take turns.
void interleaved() {
    Net one, two;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root first_root(one, "One"), second_root(two, "Two");
    const auto recording = session.recording();
    auto patches =
        session.patches({gp::add("One:first.output", 1), gp::add("One:last.output", 2), gp::add("Two:last.output", 4)});
    Tensor results[3];
    Fiber a([&](Fiber& own) { results[0] = one(x, pausing(own)); });
    Fiber b([&](Fiber& own) { results[1] = two(x, pausing(own)); });
    a.resume(), b.resume();
    results[2] = one(x * 2); // no fiber
    a.resume(), b.resume();
    same(results[0], one->by_hand(x, 1, 2));
    same(results[1], two->by_hand(x, 0, 4));
    same(results[2], one->by_hand(x * 2, 1, 2));
    require(patches[0].counts().applied == 2 && patches[2].counts().applied == 1, "each as often as its model ran");
    require(session.runs() == 3 && session.notes().empty(), "three runs, and nothing to say");
    require(session.graphs().size() == 2, "a graph of each model");
}

// The same without a word at the switches: a note says what happened, and later runs are right.
void mixed_up() {
    Net one, two;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root first_root(one, "One"), second_root(two, "Two");
    auto patches = session.patches({gp::add("One:last.output", 2), gp::add("Two:last.output", 4)});
    Fiber a([&](Fiber& own) { one(x, [&own] { own.pause(); }); });
    Fiber b([&](Fiber& own) { two(x, [&own] { own.pause(); }); });
    a.resume(), b.resume(), a.resume(), b.resume();
    require(says(session, "CallsAside"), "a note says it");
    for (int run = 0; run < 2; ++run) {
        same(one(x), one->by_hand(x, 0, 2));
        same(two(x), two->by_hand(x, 0, 4));
    }
}

// Runs cannot go on on another thread: they end there.
void on_another_thread() {
    Net net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    gp::Root root(net, "Net");
    auto patches = session.patches({gp::add("first.output", 1), gp::add("last.output", 2)});
    std::optional<gp::CallsAside> aside;
    Tensor moved;
    {
        gp::Run run("outer");
        aside.emplace();
        std::thread([&] {
            aside.reset();
            moved = net(x);
        }).join();
    }
    same(moved, net->by_hand(x, 1, 2));
    require(says(session, "another thread"), "a note says it");
    same(net(x), net->by_hand(x, 1, 2));
}

// A call of which nothing is wanted stays one, and leaves the calls alone that other fibers make meanwhile.
void unwanted() {
    Net one, two;
    const auto x = torch::randn({2, 3});
    Tensor results[2];
    Fiber a([&](Fiber& own) { results[0] = one(x, pausing(own)); });
    a.resume();
    gp::Session session;
    gp::Root root(two, "Two");
    auto patch = session.patch(gp::add("last.output", 4));
    results[1] = two(x);
    a.resume();
    same(results[0], one->by_hand(x, 0, 0));
    same(results[1], two->by_hand(x, 0, 4));
    require(patch.counts().applied == 1, "only the run that began with it");
}

const std::map<std::string, void (*)()> kChecks{
    {"interleaved", interleaved},
    {"mixed_up", mixed_up},
    {"on_another_thread", on_another_thread},
    {"unwanted", unwanted},
};

} // namespace

int main(int argc, char** argv) {
    torch::GradMode::set_enabled(false);
    torch::manual_seed(0);
    return checked(argc, argv, kChecks);
}
