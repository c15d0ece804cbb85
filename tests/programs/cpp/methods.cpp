// A program of a researcher's: it runs a model as TorchScript once for each of many experiments, and writes the logits.
//
//   methods MODEL.pt INPUTS.pt OUT.pt [--experiments FILE] [--gradient PATH]...
//
// A line of FILE is an experiment: patches as text, between tabs; an empty line has none. What probes of experiment N keep is
// saved as OUT.pt.N.safetensors. OUT.pt has a tuple for each experiment: the logits; with --gradient also the value at each of
// these paths, and then the gradient of the metric there. Without FILE the model runs once, and nothing of graphpatch is used.
// The metric of each experiment is printed.
#include <graphpatch.hpp>

#include "host.h"

#include <torch/csrc/autograd/autograd.h>

#include <cstdio>

namespace gp = graphpatch;

namespace {

std::vector<std::string> parts(const std::string& line) {
    std::vector<std::string> found;
    for (size_t at = 0; at < line.size();) {
        const size_t tab = std::min(line.find('\t', at), line.size());
        found.push_back(line.substr(at, tab - at));
        at = tab + 1;
    }
    return found;
}

// A logit at the last position.
torch::Tensor metric(const torch::Tensor& logits) {
    return logits.reshape({logits.size(0), -1, logits.size(-1)}).select(1, -1).select(1, 3).sum();
}

torch::Tensor run(torch::jit::Module& model, const std::vector<c10::IValue>& inputs) {
    const torch::Tensor logits = model.forward(inputs).toTensor();
    std::printf("metric %.17g\n", metric(logits).item<double>());
    return logits;
}

c10::IValue experiment(torch::jit::Module& model, const std::vector<c10::IValue>& inputs, const std::string& line,
                       const std::vector<std::string>& gradients, const std::string& kept_file) {
    gp::Session session;
    std::vector<gp::Patch> patches;
    for (const auto& text : parts(line)) patches.push_back(session.patch(text));
    std::vector<torch::Tensor> values(gradients.size());
    for (size_t i = 0; i < gradients.size(); ++i)
        patches.push_back(session.patch(gp::custom(gradients[i], [&values, i](const torch::Tensor& value) {
            values[i] = value;
            return torch::Tensor();
        })));
    const torch::AutoGradMode grad(!gradients.empty());
    const torch::Tensor logits = run(model, inputs);
    std::vector<c10::IValue> found{logits.detach()};
    if (!gradients.empty()) {
        for (const auto& value : values) found.emplace_back(value.detach());
        for (const auto& gradient : torch::autograd::grad({metric(logits)}, values)) found.emplace_back(gradient);
    }
    if (line.find("=probe") != std::string::npos) session.save_kept(kept_file);
    return host::tuple(std::move(found));
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> files, gradients;
    std::string experiments;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--experiments" && i + 1 < argc) experiments = argv[++i];
        else if (argument == "--gradient" && i + 1 < argc) gradients.emplace_back(argv[++i]);
        else files.push_back(argument);
    }
    if (files.size() != 3) {
        std::fprintf(stderr, "usage: methods MODEL.pt INPUTS.pt OUT.pt [--experiments FILE] [--gradient PATH]...\n");
        return 2;
    }
    try {
        torch::jit::Module model = host::load(files[0]);
        const auto inputs = host::read_inputs(files[1]);
        std::vector<c10::IValue> all;
        if (experiments.empty()) {
            const torch::NoGradGuard none;
            all.push_back(host::tuple({run(model, inputs)}));
        } else {
            std::ifstream in(experiments);
            for (std::string line; std::getline(in, line);)
                all.push_back(
                    experiment(model, inputs, line, gradients, files[2] + "." + std::to_string(all.size()) + ".safetensors"));
        }
        host::write_bytes(files[2], torch::jit::pickle_save(host::tuple(std::move(all))));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "methods: %s\n", error.what());
        return 1;
    }
    return 0;
}
