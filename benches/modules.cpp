// What the C++ binding costs: a torch::nn transformer with a Scope line in every forward, against the same model called
// without them, in one process and one thread.
//
//   modules [ROUNDS]
//
// "bare" computes the same with a forward that is written again below, without Scope lines. All modes take turns, round by
// round. The table has each mode's median, its quartiles, and the median's ratio to bare.

#include "quantile.hpp"
#include "transformer.hpp"

#include <ATen/Parallel.h>

#include <chrono>
#include <cstdio>

namespace {

// The forward of transformer.hpp without any use of graphpatch.
torch::Tensor attend(AttentionImpl& m, const torch::Tensor& x, const torch::Tensor& mask) {
    const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2), each = width / m.heads;
    const auto parts = m.qkv(x).view({batch, tokens, 3, m.heads, each}).permute({2, 0, 3, 1, 4}).unbind(0);
    auto scores = torch::matmul(parts[0], parts[1].transpose(-2, -1)) / std::sqrt(static_cast<double>(each));
    scores = scores.masked_fill(mask, -1e9).softmax(-1);
    return m.proj(torch::matmul(scores, parts[2]).transpose(1, 2).reshape({batch, tokens, width}));
}

torch::Tensor bare(GptImpl& m, const torch::Tensor& ids) {
    const int64_t tokens = ids.size(1);
    const auto hidden = m.mask.slice(0, 0, tokens).slice(1, 0, tokens);
    auto x = m.wte(ids);
    x = x + m.wpe(m.positions.slice(0, 0, tokens));
    for (const auto& layer : *m.layers) {
        auto& block = *layer->as<Block>();
        x = x + attend(*block.attn, block.ln_1(x), hidden);
        x = x + block.mlp->forward(block.ln_2(x));
    }
    return m.head(m.ln_f(x));
}

struct Mode {
    const char* name;
    std::vector<std::string> patches;
    bool recording = false, session = true, scopes = true;
    std::vector<double> times = {};
};

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::stoi(argv[1]) : 40, repeats = 20;
    at::set_num_threads(1);
    torch::NoGradGuard no_grad;
    Gpt model(Sizes{1000, 64, 64, 4, 6});
    model->eval();
    graphpatch::Root root(model, "Gpt");
    const auto ids = torch::randint(1000, {1, 16});
    if (!torch::equal(bare(*model, ids), model(ids))) return std::fprintf(stderr, "modules: not the same model\n"), 1;

    std::vector<Mode> modes = {{"bare", {}, false, false, false},
                               {"Scope lines, no session", {}, false, false},
                               {"Scope lines, a session that wants nothing", {}},
                               {"one zero patch, a module's output", {"layers_3.mlp.output=zero"}},
                               {"one zero patch, an operation", {"layers_3.attn.softmax=zero"}},
                               {"one zero patch, a weight", {"layers_3.attn.qkv.weight=zero"}},
                               {"recording", {}, true}};
    for (int round = 0; round < rounds + 2; ++round) {
        for (Mode& mode : modes) {
            std::unique_ptr<graphpatch::Session> session;
            std::vector<graphpatch::Patch> patches;
            if (mode.session) session = std::make_unique<graphpatch::Session>();
            for (const auto& patch : mode.patches) patches.push_back(session->patch(patch));
            if (mode.recording) session->set_recording(true);
            const auto forward = [&] { mode.scopes ? model(ids) : bare(*model, ids); };
            forward();  // not measured: the first run after a change is slower
            const auto begin = std::chrono::steady_clock::now();
            for (int i = 0; i < repeats; ++i) forward();
            const double t = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / repeats;
            if (round >= 2) mode.times.push_back(t);
        }
    }
    std::printf("torch::nn transformer, 6 layers 64 wide, 16 tokens: %d rounds of %d\n", rounds, repeats);
    std::printf("%-44s %10s %18s %8s\n", "", "median us", "quartiles us", "/ bare");
    for (const Mode& mode : modes)
        std::printf("%-44s %10.1f %8.1f .. %6.1f %8.3f\n", mode.name, quantile(mode.times, 0.5) * 1e6,
                    quantile(mode.times, 0.25) * 1e6, quantile(mode.times, 0.75) * 1e6,
                    quantile(mode.times, 0.5) / quantile(modes[0].times, 0.5));
    return 0;
}
