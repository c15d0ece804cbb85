// A plugin that links libtorch; the program that loads it (late.c) does not.

#include "host.h"

#include <cstdio>

extern "C" int plugin_run(const char* model, const char* inputs) {
    try {
        torch::NoGradGuard no_grad;
        auto module = host::load(model);
        auto output = module.forward(host::read_inputs(inputs));
        const auto& first = output.isTuple() ? output.toTupleRef().elements()[0] : output;
        std::printf("sum %.9g\n", first.toTensor().sum().item<double>());
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "plugin: %s\n", e.what());
        return 1;
    }
}
