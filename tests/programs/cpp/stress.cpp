// Two threads run one module 200 times each, or until a third one has added and removed a patch 100 times: every output must
// be either the bare one or the patched one, bit for bit.
//
//   stress MODEL.pt INPUTS.pt PATCH [--record | --reattach]
//
// With --reattach the module is optimized and running before any session exists, and every change opens a session and
// closes it again.
//
// The third thread runs the module as well: while the patch holds its output must be the patched one, and otherwise the bare
// one.
//
// Prints how many outputs were bare and how many patched; ends with code 1 when one was neither, or a run failed.

#include "abi.h"
#include "host.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>

namespace {

constexpr int kRunners = 2, kRuns = 200, kChanges = 100;

torch::Tensor forward(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
    torch::NoGradGuard no_grad;  // a mode of the thread
    auto output = module.forward(inputs);
    return (output.isTuple() ? output.toTupleRef().elements()[0] : output).toTensor().clone();
}

struct Runner {
    std::vector<torch::Tensor> outputs;
    std::string error;
};

// What the thread that changes patches has computed while the patch held, and while it did not.
struct Seen {
    std::vector<torch::Tensor> patched, bare;
};

// Adds and removes the patch until the runners are done; they go on until it has done so a hundred times. Both states last
// about as long as a run, so that the runners meet both. The path is checked against whole runs only, so that it is accepted
// even while the runners' first runs are not complete.
void change(const std::string& patch, bool record, bool reattach, const std::function<torch::Tensor()>& forward,
            const std::atomic<int>& running, std::atomic<int>& changes, Seen& seen) {
    std::unique_ptr<abi::Session> session;
    for (; running > 0; ++changes) {
        if (!session) {
            session = std::make_unique<abi::Session>();
            session->record(record);
        }
        auto added = session->add(patch);
        if (changes % 2) seen.patched.push_back(forward());
        else std::this_thread::sleep_for(std::chrono::microseconds(changes % 500));
        session->remove(added);
        if (reattach) session.reset();
        if (changes % 2) seen.bare.push_back(forward());
        else std::this_thread::sleep_for(std::chrono::microseconds(changes % 700));
    }
}

int run(int argc, char** argv) {
    const std::string option = argc == 5 ? argv[4] : "";
    const bool record = option == "--record", reattach = option == "--reattach";
    if (argc != 4 && !record && !reattach)
        throw std::runtime_error("usage: stress MODEL.pt INPUTS.pt PATCH [--record | --reattach]");
    at::set_num_threads(1);
    auto module = host::load(argv[1]);
    auto inputs = host::read_inputs(argv[2]);
    const std::string patch = argv[3];
    auto bare = forward(module, inputs);
    if (reattach)
        for (int i = 0; i < 5; ++i) forward(module, inputs); // until the executor has optimized it
    else abi::Session(); // opened and closed only to load the adapter

    std::atomic<int> running{kRunners}, changes{0};
    std::vector<Runner> states(kRunners);
    std::vector<std::thread> runners;
    for (auto& state : states)
        runners.emplace_back([&] {
            try {
                for (int r = 0; r < kRuns || changes < kChanges; ++r) state.outputs.push_back(forward(module, inputs));
            } catch (const std::exception& e) {
                state.error = e.what();
            }
            --running;
        });
    std::string error;
    Seen seen;
    try {
        change(patch, record, reattach, [&] { return forward(module, inputs); }, running, changes, seen);
    } catch (const std::exception& e) {
        error = std::string("changing patches failed: ") + e.what();
        changes = kChanges;
    }
    for (auto& runner : runners) runner.join();
    if (!error.empty()) throw std::runtime_error(error);

    torch::Tensor patched;
    {
        abi::Session session;
        session.add(patch);
        patched = forward(module, inputs);
    }
    if (bare.equal(patched)) throw std::runtime_error("the patch changes nothing, so the test would prove nothing");
    if (!forward(module, inputs).equal(bare)) throw std::runtime_error("the removed patch still acts");

    for (const auto& output : seen.patched)
        if (!output.equal(patched)) throw std::runtime_error("an output was not patched while the patch held");
    for (const auto& output : seen.bare)
        if (!output.equal(bare)) throw std::runtime_error("an output was patched while no patch held");
    int n_bare = 0, n_patched = 0, neither = 0;
    for (const auto& state : states) {
        if (!state.error.empty()) throw std::runtime_error("a run failed: " + state.error);
        for (const auto& output : state.outputs) {
            if (output.equal(bare)) ++n_bare;
            else if (output.equal(patched)) ++n_patched;
            else ++neither;
        }
    }
    std::printf("%d bare, %d patched, %d neither, %d changes\n", n_bare, n_patched, neither, changes.load());
    // If all outputs were of one kind, the changes never met a run, and the test would prove nothing.
    if (n_bare == 0 || n_patched == 0) throw std::runtime_error("the changes met no run");
    return neither == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    return host::guarded("stress", [&] { return run(argc, argv); });
}
