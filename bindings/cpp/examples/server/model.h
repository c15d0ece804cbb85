// The model that is served, with its graphpatch session and the patches that clients have added.
#pragma once

#include <graphpatch.hpp>
#include <torch/script.h>

#include <cinttypes>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

// A TorchScript module that takes a batch of token ids and returns a tensor with one row for each sequence; of a tuple, the
// first tensor is used. Any number of threads may call it at once.
class Model {
public:
    // The first run is recorded: patches are checked against its graph from then on.
    explicit Model(const std::string& file) : module_(torch::jit::load(file)), recording_(session_.recording()) {
        module_.eval();
    }

    // One row for each row of `tokens`. A run keeps the patches that it begins with, whatever happens to them meanwhile.
    torch::Tensor operator()(const torch::Tensor& tokens) {
        torch::NoGradGuard no_grad;  // the mode belongs to the thread, so each call sets it
        const c10::IValue output = module_.forward({tokens});
        std::call_once(recorded_, [&] { recording_.reset(); });
        const torch::Tensor rows = output.isTuple() ? output.toTupleRef().elements().at(0).toTensor() : output.toTensor();
        return rows.to(torch::kCPU, torch::kFloat).contiguous();
    }

    // Adds a patch. It holds for runs that begin from now on.
    void patch(const std::string& text) {
        auto added = session_.patch(text);
        std::lock_guard lock(mutex_);
        patches_.push_back({text, std::move(added)});
    }
    size_t clear() {
        std::lock_guard lock(mutex_);
        const size_t n = patches_.size();
        patches_.clear();
        return n;
    }
    // One line for each patch: its text and its counts.
    std::string patches() const {
        std::lock_guard lock(mutex_);
        std::string lines;
        for (const auto& [text, patch] : patches_) {
            const gp_patch_counts counts = patch.counts();
            char line[96];
            std::snprintf(line, sizeof line, ": matched %" PRIu64 ", applied %" PRIu64 ", failed %" PRIu64 "\n", counts.matched,
                          counts.applied, counts.failed);
            lines += "patch " + text + line;
        }
        return lines;
    }

    std::string tree() const {
        const graphpatch::Graphs graphs = session_.graphs();
        if (graphs.empty()) throw std::runtime_error("nothing has run yet");
        return graphs[0].tree();
    }

private:
    struct Added {
        std::string text;
        graphpatch::Patch patch;
    };

    torch::jit::Module module_;
    graphpatch::Session session_;
    std::once_flag recorded_;
    std::optional<graphpatch::Recording> recording_;
    mutable std::mutex mutex_;
    std::vector<Added> patches_;
};
