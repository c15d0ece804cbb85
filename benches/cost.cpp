// What libgraphpatch costs: operations called from C++, and a TorchScript forward, in one process and one thread.
//
//   cost MODEL.pt [ROUNDS]
//
// "bare" is measured before any session is opened. In "idle", a session is attached that records and patches nothing. All
// modes but "bare" take turns, round by round, so that a slower phase of the machine affects all of them. The table has each
// mode's median, its ratio to idle, its quartiles, its difference from idle per operation, and what a target asks for, if the
// mode has one: at most so many times bare, or so many nanoseconds per operation. "MISSED" stands where the median misses it.

#include "abi.h"
#include "host.h"
#include "quantile.hpp"
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace {

using abi::check;

double seconds(const std::function<void()>& body) {
    auto begin = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What a mode may cost at most; 0 where nothing is asked for.
struct Target {
    double times_bare = 0, nanoseconds = 0;
};

struct Mode {
    std::string name;
    std::vector<std::string> patches = {};
    bool recording = false;
    Target target = {};
    std::vector<double> times = {};
};

class Subject {
public:
    Subject(std::string name, int repeats, std::function<void()> body)
        : name_(std::move(name)), repeats_(repeats), body_(std::move(body)) {}

    void bare(int rounds, const std::function<void()>& body) {
        for (int i = 0; i < rounds + 2; ++i) {
            double t = seconds([&] {
                           for (int r = 0; r < repeats_; ++r) body();
                       }) /
                       repeats_;
            if (i >= 2) bare_.push_back(t);
        }
    }

    void measure(gp_session* session, int operations, std::vector<Mode> modes, int rounds) {
        operations_ = operations;
        for (int i = 0; i < rounds + 2; ++i) {
            for (auto& mode : modes) {
                std::vector<uint64_t> ids;
                for (const auto& patch : mode.patches) check(gp_patch_add(session, patch.c_str(), &ids.emplace_back()));
                check(gp_session_record(session, mode.recording));
                body_();  // not measured: the first run after a change is slower
                double t = seconds([&] {
                               for (int r = 0; r < repeats_; ++r) body_();
                           }) /
                           repeats_;
                if (i >= 2) mode.times.push_back(t);
                check(gp_session_record(session, false));
                for (uint64_t id : ids) check(gp_patch_remove(session, id));
            }
        }
        std::printf("\n%s: %d operations, %d rounds of %d\n", name_.c_str(), operations_, rounds, repeats_);
        std::printf("%-34s %10s %18s %8s %8s %12s  %s\n", "", "median us", "quartiles us", "/ idle", "/ bare", "ns per op",
                    "target");
        double idle = quantile(modes[0].times, 0.5), bare = quantile(bare_, 0.5);
        row("bare, before any session", bare_, idle, bare, {});
        for (auto& mode : modes) row(mode.name, mode.times, idle, bare, mode.target);
    }

private:
    void row(const std::string& name, const std::vector<double>& times, double idle, double bare, const Target& target) const {
        double median = quantile(times, 0.5), per_operation = (median - idle) / operations_ * 1e9;
        std::printf("%-34s %10.1f %8.1f .. %6.1f %8.3f %8.3f %12.0f", name.c_str(), median * 1e6, quantile(times, 0.25) * 1e6,
                    quantile(times, 0.75) * 1e6, median / idle, median / bare, per_operation);
        if (target.times_bare)
            std::printf("  %.3f x bare%s", target.times_bare, median > target.times_bare * bare ? ", MISSED" : "");
        if (target.nanoseconds)
            std::printf("  %.0f ns%s", target.nanoseconds, per_operation > target.nanoseconds ? ", MISSED" : "");
        std::printf("\n");
    }

    std::string name_;
    int operations_ = 0, repeats_;
    std::function<void()> body_;
    std::vector<double> bare_;
};

// Counts the operation nodes of a recorded run of `body`.
int count_operations(gp_session* session, const std::function<void()>& body, const std::string& file) {
    check(gp_session_record(session, true));
    body();
    check(gp_session_record(session, false));
    gp_graphs* graphs = nullptr;
    check(gp_session_graphs(session, &graphs));
    check(gp_graphs_save(graphs, file.c_str()));
    gp_graphs_free(graphs);
    std::ifstream in(file);
    std::string json((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    int n = 0;
    for (size_t at = json.find("\"kind\":\"op\""); at != std::string::npos; at = json.find("\"kind\":\"op\"", at + 1)) ++n;
    return n;
}

int run(int argc, char** argv) {
    if (argc < 2) throw std::runtime_error("usage: cost MODEL.pt [ROUNDS]");
    int rounds = argc > 2 ? std::stoi(argv[2]) : 40;
    at::set_num_threads(1);
    torch::NoGradGuard no_grad;

    const int kEager = 2000;
    auto a = torch::ones({4}), b = torch::ones({4});
    auto adds = [&] {
        for (int i = 0; i < kEager; ++i) b = at::add(a, a);
    };
    Subject eager("add of 4 floats, called from C++", 5, [&] {
        check(gp_run_begin("eager"));
        adds();
        check(gp_run_end());
    });
    auto module = torch::jit::load(argv[1]);
    std::vector<c10::IValue> inputs{torch::arange(16).unsqueeze(0)};
    auto forward = [&] { module.forward(inputs); };
    Subject script("TorchScript forward, 6-layer 64-wide GPT-2, 16 tokens", 20, forward);

    // Bare comes first: until now the process has loaded the library, and nothing else of ours runs in it.
    script.bare(rounds, forward);
    eager.bare(rounds, adds);

    gp_session* session = nullptr;
    check(gp_session_open(&session));
    check(gp_session_attach(session));
    int operations = count_operations(session, forward, std::string(argv[1]) + ".graph.json");
    script.measure(session, operations,
                   {{"idle", {}, false, {1.005, 0}},
                    {"one zero patch, a module's output", {"layers_3.mlp.output=zero"}, false, {1.03, 0}},
                    {"one zero patch, an operation", {"layers_3.attn.softmax=zero"}, false, {1.03, 0}},
                    {"a patch in every layer, all armed",
                     {"layers_0.attn.output=add:0", "layers_1.attn.output=add:0", "layers_2.attn.output=add:0",
                      "layers_3.attn.output=add:0", "layers_4.attn.output=add:0", "layers_5.attn.output=add:0"}},
                    {"recording", {}, true, {1.25, 0}}},
                   rounds);
    gp_session_close(session);

    // The second subject gets a session of its own: in the old one, its paths would be checked against the first one's graph.
    check(gp_session_open(&session));
    check(gp_session_attach(session));
    eager.measure(session, kEager,
                  {{"idle"},
                   {"one patch that matches elsewhere", {"mul=zero"}, false, {0, 150}},
                   {"one patch of a later add", {"add_99999999=zero"}, false, {0, 150}}},
                  rounds);
    eager.measure(session, kEager, {{"idle"}, {"recording", {}, true, {0, 500}}}, rounds);
    gp_session_close(session);
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return host::guarded("cost", [&] { return run(argc, argv); });
}
