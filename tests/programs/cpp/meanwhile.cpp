// What other threads change while a run is under way: it has the patches that held when it began. Each check holds a run at a
// gate, and changes something there.
//
//   meanwhile CASE MODEL.pt     runs one check; without CASE lists them. The model is a TorchScript module with the same gate,
//   as
//                               the operator meanwhile::gate.
#include <graphpatch.hpp>
#include <torch/library.h>
#include <torch/nn.h>
#include <torch/script.h>

#include "check.hpp"

#include <functional>
#include <future>
#include <optional>
#include <thread>

namespace gp = graphpatch;
using torch::Tensor;
using torch::nn::Linear;

namespace {

// Where a run stops, once, until it may go on. What happens meanwhile is done by the thread that opened the gate's block.
struct Gate {
    std::promise<void> reached, opened;
    bool holds = false;
    void pass() {
        if (!holds) return;
        holds = false;
        reached.set_value();
        opened.get_future().wait();
    }
};

struct PartImpl : torch::nn::Module {
    PartImpl() : linear(register_module("linear", Linear(3, 3))) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        return scope.output(torch::tanh(gp::call(linear, x)));
    }
    Linear linear;
};
TORCH_MODULE(Part);

struct WholeImpl : torch::nn::Module {
    WholeImpl() : part(register_module("part", Part())), last(register_module("last", Part())) {}
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        const Tensor y = x * 2;
        gate->pass();
        return scope.output(torch::exp(last(part(y))) + y);
    }
    Part part, last;
    std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};
TORCH_MODULE(Whole);

// Calls the model on a thread of its own, holds the call at the gate while `meanwhile` is done, and returns what it gives.
template <class Model>
Tensor held(Model& model, const std::function<Tensor()>& call, const std::function<void()>& meanwhile) {
    model->gate = std::make_shared<Gate>();
    const auto gate = model->gate;
    gate->holds = true;
    auto result = std::async(std::launch::async, call);
    gate->reached.get_future().wait();
    meanwhile();
    gate->opened.set_value();
    return result.get();
}

std::vector<std::vector<gp::Spec>> kinds() {
    return {{gp::zero("part.output")},
            {gp::add("last.x", 1)},
            {gp::replace("last.tanh", 0.25)},
            {gp::zero("exp")},
            {gp::zero("last.linear.weight")},
            {gp::add("last.linear.weight", 1), gp::zero("part.linear.bias"), gp::add("output", 1)}};
}

// Does `change` to a session with these patches while a run is held. The run has them, and a run that begins later has none.
void keeps(const std::function<void(std::optional<gp::Session>&, std::optional<gp::PatchSet>&)>& change) {
    for (const auto& specs : kinds()) {
        Whole net;
        const auto x = torch::randn({2, 3});
        const Tensor bare = net(x);
        std::optional<gp::Session> session(std::in_place);
        std::optional<gp::PatchSet> patches(session->patches(specs));
        const Tensor expected = net(x);
        require(!torch::equal(expected, bare), "the patches change something");
        Tensor other;
        same(held(
                 net, [&] { return net(x); },
                 [&] {
                     change(session, patches);
                     other = net(x);
                 }),
             expected);
        same(other, bare);
        same(net(x), bare);
    }
}

void removed() {
    keeps([](auto&, auto& patches) { patches.reset(); });
}

void closed() {
    keeps([](auto& session, auto& patches) {
        patches.reset();
        session.reset();
    });
}

void closed_first() {
    keeps([](auto& session, auto&) { session.reset(); });
}

void detached() {
    keeps([](auto& session, auto&) { session->detach(); });
}

void switched_off() {
    for (const auto& specs : kinds()) {
        Whole net;
        const auto x = torch::randn({2, 3});
        const Tensor bare = net(x);
        gp::Session session;
        std::vector<gp::Patch> patches;
        for (const auto& spec : specs) patches.push_back(session.patch(spec));
        const Tensor expected = net(x);
        same(held(
                 net, [&] { return net(x); },
                 [&] {
                     for (auto& patch : patches) patch.enable(false);
                 }),
             expected);
        same(net(x), bare);
        same(held(
                 net, [&] { return net(x); },
                 [&] {
                     for (auto& patch : patches) patch.enable(true);
                 }),
             bare);
        same(net(x), expected);
    }
}

void begun_meanwhile() {
    for (const auto& specs : kinds()) {
        Whole net;
        const auto x = torch::randn({2, 3});
        const Tensor bare = net(x);
        std::optional<gp::Session> session;
        std::optional<gp::PatchSet> patches;
        same(held(
                 net, [&] { return net(x); },
                 [&] {
                     session.emplace();
                     patches.emplace(session->patches(specs));
                     require(!torch::equal(net(x), bare), "the patches hold for others");
                 }),
             bare);
        patches.reset();
        // The same where the session wanted runs before.
        const auto recording = session->recording();
        same(held(net, [&] { return net(x); }, [&] { patches.emplace(session->patches(specs)); }), bare);
        const Tensor expected = net(x);
        std::optional<gp::PatchSet> more;
        same(held(
                 net, [&] { return net(x); },
                 [&] { more.emplace(session->patches({gp::zero("part.output"), gp::zero("last.output")})); }),
             expected);
    }
}

void recorded() {
    Whole net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    std::optional<gp::Recording> recording(session.recording());
    held(net, [&] { return net(x); }, [&] { recording.reset(); });
    const std::string tree = session.graphs()[0].tree();
    recording.emplace(session.recording());
    net(x);
    recording.reset();
    is(tree, session.graphs()[0].tree());
    held(net, [&] { return net(x); }, [&] { recording.emplace(session.recording()); });
    recording.reset();
    is(std::to_string(session.graphs().size()), "1");
}

// A TorchScript module that is called from C++, as a root or by a module.
std::string file;
std::shared_ptr<Gate> script_gate;

Tensor gate(const Tensor& x) {
    if (script_gate) script_gate->pass();
    return x.clone();
}

struct HolderImpl : torch::nn::Module {
    Tensor forward(Tensor x) {
        gp::Scope scope(this, {{"x", x}});
        gate->pass();
        return scope.output(script.forward({x + 1}).toTensor());
    }
    torch::jit::Module script = torch::jit::load(file);
    std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};
TORCH_MODULE(Holder);

Tensor held_script(torch::jit::Module& script, const Tensor& x, const std::function<void()>& meanwhile) {
    script_gate = std::make_shared<Gate>();
    script_gate->holds = true;
    auto result = std::async(std::launch::async, [&] { return script.forward({x}).toTensor(); });
    script_gate->reached.get_future().wait();
    meanwhile();
    script_gate->opened.set_value();
    return result.get();
}

void script_root() {
    for (const auto& specs : std::vector<std::vector<gp::Spec>>{
             {gp::zero("exp")}, {gp::add("output", 1)}, {gp::zero("part.linear.weight")}, {gp::replace("part.output", 0.5)}}) {
        auto script = torch::jit::load(file);
        const auto x = torch::randn({2, 3});
        const Tensor bare = script.forward({x}).toTensor();
        std::optional<gp::Session> session;
        std::optional<gp::PatchSet> patches;
        const auto open = [&] {
            session.emplace();
            patches.emplace(session->patches(specs));
        };
        same(held_script(script, x, open), bare);
        const Tensor expected = script.forward({x}).toTensor();
        require(!torch::equal(expected, bare), "the patches change something");
        same(held_script(script, x, [&] { patches.reset(); }), expected);
        same(script.forward({x}).toTensor(), bare);
        same(held_script(script, x, [&] { patches.emplace(session->patches(specs)); }), bare);
        same(held_script(script, x,
                         [&] {
                             session.reset();
                             same(script.forward({x}).toTensor(), bare);
                         }),
             expected);
        patches.reset();
        same(script.forward({x}).toTensor(), bare);
    }
}

void script_in_a_call_that_began_before() {
    Holder net;
    const auto x = torch::randn({2, 3});
    const Tensor bare = net(x);
    gp::Session session;
    std::optional<gp::Patch> patch;
    same(held(net, [&] { return net(x); }, [&] { patch.emplace(session.patch(gp::zero("output"))); }), bare);
    require(!net(x).any().item<bool>(), "the patch holds later");
    require(patch->counts().matched == 1, "it was met once");
}

// Nothing is wanted of a run of the outer module; the scripted one that it calls is no root then.
void script_in_a_declined_run() {
    Holder net;
    const auto x = torch::randn({2, 3});
    const Tensor bare = net(x);
    gp::Session session;
    const auto patch = session.patch(gp::zero("output").runs("1"));
    for (int run = 0; run < 4; ++run) same(net(x), run == 1 ? torch::zeros_like(bare) : bare);
    require(patch.counts().matched == 1, "it was met once");
}

void valued() {
    Whole net;
    const auto x = torch::randn({2, 3});
    gp::Session session;
    auto patch = session.patch(gp::add("part.output", 1));
    const Tensor expected = net(x);
    same(held(net, [&] { return net(x); }, [&] { patch.set_value(5); }), expected);
    require(!torch::equal(net(x), expected), "the value holds later");
}

// What is said of patches that are removed before a run that is under way has come by them.
void removed_before_it_was_reached() {
    Whole net;
    const auto x = torch::randn({2, 3});
    net(x);
    const std::string so_far = ": no run came by there so far, and runs that began before the removal are under way; "
                               "Session::missed() tells when they have ended";
    for (const bool in_a_set : {false, true}) {
        gp::Session session;
        const std::vector<gp::Spec> specs{gp::zero("exp"), gp::zero("part.exp")};
        std::optional<gp::PatchSet> set;
        std::vector<gp::Patch> patches;
        if (in_a_set) set.emplace(session.patches(specs));
        else
            for (const auto& spec : specs) patches.push_back(session.patch(spec));
        held(
            net, [&] { return net(x); },
            [&] {
                set.reset();
                patches.clear();
                {
                    const auto later = session.patch(gp::zero("last.exp"));
                }
                std::vector<std::string> said{"a patch never matched: last.exp: no run came by there"};
                if (in_a_set) said.insert(said.begin(), "patches have not matched yet: exp, part.exp" + so_far);
                else
                    said.insert(said.begin(), {"a patch has not matched yet: exp" + so_far,
                                               "a patch has not matched yet: part.exp" + so_far});
                same(session.notes(), said);
            });
        same(session.missed(), {"part.exp=zero", "last.exp=zero"});
    }
}

} // namespace

TORCH_LIBRARY(meanwhile, library) { library.def("gate(Tensor x) -> Tensor", gate); }

int main(int argc, char** argv) {
    if (argc > 2) file = argv[2];
    return checked(argc, argv,
                   {{"removed", removed},
                    {"removed_before_it_was_reached", removed_before_it_was_reached},
                    {"closed", closed},
                    {"closed_first", closed_first},
                    {"detached", detached},
                    {"switched_off", switched_off},
                    {"begun_meanwhile", begun_meanwhile},
                    {"recorded", recorded},
                    {"script_root", script_root},
                    {"script_in_a_call_that_began_before", script_in_a_call_that_began_before},
                    {"script_in_a_declined_run", script_in_a_declined_run},
                    {"valued", valued}});
}
