// The C face of a TorchScript module; see model.h.

#include "model.h"

#include <torch/script.h>

#include <algorithm>
#include <cstdio>
#include <string>

struct model {
    torch::jit::Module module;
};

namespace {
thread_local std::string last_error;
}

model *model_load(const char *file) {
    try {
        return new model{torch::jit::load(file)};
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s: %s\n", file, e.what());
        return nullptr;
    }
}

long model_run(model *m, const float *input, long rows, long columns, float *out, size_t capacity) {
    try {
        torch::NoGradGuard no_grad;
        auto x = torch::from_blob(const_cast<float *>(input), {rows, columns}).clone();
        auto value = m->module.forward({x});
        auto tensor = value.isTuple() ? value.toTuple()->elements()[0].toTensor() : value.toTensor();
        tensor = tensor.contiguous();
        size_t n = static_cast<size_t>(tensor.numel());
        std::copy_n(tensor.data_ptr<float>(), std::min(n, capacity), out);
        return static_cast<long>(n);
    } catch (const std::exception& e) {
        last_error = e.what();
        return -1;
    }
}

const char *model_error(void) {
    return last_error.c_str();
}

void model_free(model *m) {
    delete m;
}
