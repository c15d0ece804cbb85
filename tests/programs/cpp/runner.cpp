// A host program for the tests: runs a TorchScript module and writes every output, so that Python can compare them bit
// for bit. It knows nothing of libgraphpatch.
//
//   runner MODEL.pt INPUTS.pt OUT.pt [--runs N] [--threads N] [--grad | --no-grad | --inference-mode]
//          [--submodule a.b.c] [--method NAME] [--freeze] [--optimize] [--late-threads] [--catch] [--requires-grad]
//
// OUT.pt is a tuple: (outputs of each thread, each a tuple with one entry per run), (weights after the runs), (inputs
// after the runs). Without --catch an exception of forward ends the program with code 1 and its message on stderr; with
// it the run's entry is the message, and the next run follows. --late-threads lets main's run end before the threads
// start. --requires-grad makes the first input require grad and puts (output, gradient of its sum) for each output.

#include "host.h"

#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <cstring>
#include <thread>

namespace {

struct Options {
    std::vector<std::string> files;
    std::string submodule, method = "forward", mode = "--no-grad";
    int runs = 1, threads = 1;
    bool freeze = false, optimize = false, late_threads = false, catch_errors = false, requires_grad = false;
};

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        std::string a = argv[i];
        auto value = [&]() -> std::string {
            if (++i >= argc) throw std::runtime_error(a + " needs a value");
            return argv[i];
        };
        if (a == "--runs") o.runs = std::stoi(value());
        else if (a == "--threads") o.threads = std::stoi(value());
        else if (a == "--submodule") o.submodule = value();
        else if (a == "--method") o.method = value();
        else if (a == "--grad" || a == "--no-grad" || a == "--inference-mode") o.mode = a;
        else if (a == "--freeze") o.freeze = true;
        else if (a == "--optimize") o.optimize = true;
        else if (a == "--late-threads") o.late_threads = true;
        else if (a == "--catch") o.catch_errors = true;
        else if (a == "--requires-grad") o.requires_grad = true;
        else if (a.rfind("--", 0) == 0) throw std::runtime_error("unknown option " + a);
        else o.files.push_back(a);
    }
    if (o.files.size() != 3) throw std::runtime_error("usage: runner MODEL.pt INPUTS.pt OUT.pt [options]");
    return o;
}

torch::jit::Module find(torch::jit::Module module, const std::string& path) {
    for (size_t at = 0; at < path.size();) {
        size_t dot = std::min(path.find('.', at), path.size());
        module = module.attr(path.substr(at, dot - at)).toModule();
        at = dot + 1;
    }
    return module;
}

// The sum's gradient with respect to the first input: what a patch must not break.
c10::IValue with_gradient(const c10::IValue& output, const torch::Tensor& input) {
    torch::Tensor tensor = output.isTuple() ? output.toTupleRef().elements()[0].toTensor() : output.toTensor();
    auto gradient = torch::autograd::grad({tensor.sum()}, {input}, {}, std::nullopt, false, /*allow_unused=*/true)[0];
    return host::tuple({host::snapshot(output), gradient.defined() ? c10::IValue(gradient) : c10::IValue()});
}

c10::IValue run_all(torch::jit::Module& module, const Options& o, const std::vector<c10::IValue>& inputs) {
    // Modes belong to the thread. Switching inference mode off switches gradients on, so it comes first.
    c10::InferenceMode inference(o.mode == "--inference-mode");
    torch::AutoGradMode grad(o.mode == "--grad");
    std::vector<c10::IValue> outputs;
    for (int r = 0; r < o.runs; ++r) {
        try {
            auto output = module.get_method(o.method)(inputs);
            outputs.push_back(o.requires_grad ? with_gradient(output, inputs[0].toTensor()) : host::snapshot(output));
        } catch (const std::exception& e) {
            if (!o.catch_errors) throw;
            outputs.emplace_back(std::string(e.what()));
        }
    }
    return host::tuple(std::move(outputs));
}

int run(int argc, char** argv) {
    Options o = parse(argc, argv);
    torch::jit::Module module = host::load(o.files[0]);
    if (o.freeze) module = torch::jit::freeze(module);
    if (o.optimize) module = torch::jit::optimize_for_inference(module);
    module = find(module, o.submodule);
    auto inputs = host::read_inputs(o.files[1]);
    if (o.requires_grad) inputs[0] = inputs[0].toTensor().clone().requires_grad_(true);

    std::vector<c10::IValue> results(o.threads);
    std::vector<std::string> errors(o.threads);
    auto work = [&](int t) {
        try {
            results[t] = run_all(module, o, inputs);
        } catch (const std::exception& e) {
            errors[t] = e.what();
        }
    };
    if (o.late_threads) work(0);
    std::vector<std::thread> threads;
    for (int t = 1; t < o.threads; ++t) threads.emplace_back(work, t);
    if (!o.late_threads) work(0);
    for (auto& thread : threads) thread.join();
    for (const auto& error : errors)
        if (!error.empty()) throw std::runtime_error(error);

    auto after = host::tuple({host::tuple(results), host::weights(module), host::snapshot(host::tuple(inputs))});
    host::write_bytes(o.files[2], torch::jit::pickle_save(after));
    std::printf("%d run(s) in %d thread(s)\n", o.runs, o.threads);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    return host::guarded("runner", [&] { return run(argc, argv); });
}
