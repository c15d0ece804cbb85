// A host program for the tests: runs a model that AOTInductor has compiled, and writes every output. It knows nothing of
// libgraphpatch.
//
//   packaged MODEL.pt2 INPUTS.pt OUT.pt [--runs N] [--threads N] [--runner] [--wrong]
//
// OUT.pt is a tuple: the outputs of each thread, each a tuple with one entry per run; all threads share the model, which has a
// runner for each of them. --runner calls the runner inside the loader directly. --wrong gives one input too few, and
// writes the message of the exception.

#include "host.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <thread>

int main(int argc, char** argv) try {
    std::vector<std::string> files;
    int runs = 1, threads = 1;
    bool itself = false, wrong = false;
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        if (a == "--runs") runs = std::stoi(argv[++i]);
        else if (a == "--threads") threads = std::stoi(argv[++i]);
        else if (a == "--runner") itself = true;
        else if (a == "--wrong") wrong = true;
        else files.push_back(a);
    }
    std::vector<torch::Tensor> inputs;
    for (const auto& input : host::read_inputs(files.at(1))) inputs.push_back(input.toTensor());
    torch::inductor::AOTIModelPackageLoader model(files.at(0), "model", false, static_cast<size_t>(threads));
    if (wrong) {
        try {
            model.run({inputs.begin(), inputs.end() - 1});
        } catch (const std::exception& error) {
            host::write_bytes(files.at(2), torch::jit::pickle_save(std::string(error.what()).substr(0, 40)));
        }
        return 0;
    }
    std::vector<c10::IValue> outputs(static_cast<size_t>(threads));
    std::vector<std::thread> workers;
    for (auto& output : outputs)
        workers.emplace_back([&] {
            c10::InferenceMode inference;
            std::vector<c10::IValue> all;
            for (int r = 0; r < runs; ++r) {
                const auto values = itself ? model.get_runner()->run(inputs) : model.run(inputs);
                std::vector<c10::IValue> run;
                for (const auto& value : values) run.push_back(value.clone());
                all.push_back(host::tuple(std::move(run)));
            }
            output = host::tuple(std::move(all));
        });
    for (auto& worker : workers) worker.join();
    host::write_bytes(files.at(2), torch::jit::pickle_save(host::tuple(std::move(outputs))));
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
