// Two threads run one module 200 times each while a third adds and removes a patch all the time: every output must be
// either the bare one or the patched one, bit for bit.
//
//   stress MODEL.pt INPUTS.pt PATCH [--record]
//
// Prints how many outputs were bare and how many patched; ends with code 1 when one was neither, or a run failed.

#include "abi.h"
#include "host.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

namespace {

constexpr int kRunners = 2, kRuns = 200;

torch::Tensor forward(torch::jit::Module& module, const std::vector<c10::IValue>& inputs) {
    torch::NoGradGuard no_grad;  // a mode of the thread
    auto output = module.forward(inputs);
    return (output.isTuple() ? output.toTupleRef().elements()[0] : output).toTensor().clone();
}

struct Counts {
    int bare = 0, patched = 0, neither = 0;
    std::string error;
};

int run(int argc, char** argv) {
    const bool record = argc == 5 && std::string(argv[4]) == "--record";
    if (argc != 4 && !record) throw std::runtime_error("usage: stress MODEL.pt INPUTS.pt PATCH [--record]");
    at::set_num_threads(1);
    auto module = host::load(argv[1]);
    auto inputs = host::read_inputs(argv[2]);
    abi::Session session;
    session.record(record);

    auto bare = forward(module, inputs);
    auto id = session.add(argv[3]);
    auto patched = forward(module, inputs);
    session.remove(id);
    if (bare.equal(patched)) throw std::runtime_error("the patch changes nothing, so the test would prove nothing");
    if (!forward(module, inputs).equal(bare)) throw std::runtime_error("the removed patch still acts");

    std::atomic<int> running{kRunners};
    std::vector<Counts> counts(kRunners);
    std::vector<std::thread> runners;
    for (int t = 0; t < kRunners; ++t)
        runners.emplace_back([&, t] {
            try {
                for (int r = 0; r < kRuns; ++r) {
                    auto output = forward(module, inputs);
                    if (output.equal(bare)) ++counts[t].bare;
                    else if (output.equal(patched)) ++counts[t].patched;
                    else ++counts[t].neither;
                }
            } catch (const std::exception& e) {
                counts[t].error = e.what();
            }
            --running;
        });

    std::string changer_error;
    int changes = 0;
    try {
        // At least a hundred changes, however quickly the runners finish. Both states last about as long as a run, so
        // that the runners meet both.
        for (; running > 0 || changes < 100; ++changes) {
            auto added = session.add(argv[3]);
            std::this_thread::sleep_for(std::chrono::microseconds(changes % 500));
            session.remove(added);
            std::this_thread::sleep_for(std::chrono::microseconds(changes % 700));
        }
    } catch (const std::exception& e) {
        changer_error = e.what();
    }
    for (auto& runner : runners) runner.join();

    Counts sum;
    for (const auto& c : counts) {
        sum.bare += c.bare, sum.patched += c.patched, sum.neither += c.neither;
        if (!c.error.empty()) throw std::runtime_error("a run failed: " + c.error);
    }
    if (!changer_error.empty()) throw std::runtime_error("changing patches failed: " + changer_error);
    std::printf("%d bare, %d patched, %d neither, %d changes\n", sum.bare, sum.patched, sum.neither, changes);
    // Only one kind would mean that the changes never met a run, and that nothing was proved.
    if (sum.bare == 0 || sum.patched == 0) throw std::runtime_error("the changes met no run");
    return sum.neither == 0 && sum.bare + sum.patched == kRunners * kRuns ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "stress: %s\n", e.what());
        return 1;
    }
}
