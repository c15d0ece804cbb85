// The C face of a TorchScript module and of a few operations; see model.h.

#include "model.h"

#include <torch/script.h>

#include <algorithm>
#include <cstdio>
#include <string>

struct model {
    torch::jit::Module module;
};

struct model_tensor {
    at::Tensor tensor;
};

namespace {

thread_local std::string last_error;

// What `body` returns, or `failed` and a message.
template <class Result, class Body>
Result caught(Result failed, Body body) {
    try {
        return body();
    } catch (const std::exception& e) {
        last_error = e.what();
        return failed;
    }
}

template <class Body>
model_tensor* made(Body body) {
    return caught<model_tensor*>(nullptr, [&] { return new model_tensor{body()}; });
}

long read(at::Tensor tensor, float* out, size_t capacity) {
    tensor = tensor.contiguous();
    size_t n = static_cast<size_t>(tensor.numel());
    std::copy_n(tensor.data_ptr<float>(), std::min(n, capacity), out);
    return static_cast<long>(n);
}

}  // namespace

model* model_load(const char* file) {
    try {
        return new model{torch::jit::load(file)};
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s: %s\n", file, e.what());
        return nullptr;
    }
}

long model_run(model* m, const float* input, long rows, long columns, float* out, size_t capacity) {
    return caught(-1L, [&] {
        torch::NoGradGuard no_grad;
        auto x = torch::from_blob(const_cast<float*>(input), {rows, columns}).clone();
        auto value = m->module.forward({x});
        return read(value.isTuple() ? value.toTuple()->elements()[0].toTensor() : value.toTensor(), out, capacity);
    });
}

const char* model_error(void) { return last_error.c_str(); }

void model_free(model* m) { delete m; }

model_tensor* model_tensor_new(const float* values, long rows, long columns, int gradient) {
    return made(
        [&] { return torch::from_blob(const_cast<float*>(values), {rows, columns}).clone().set_requires_grad(gradient != 0); });
}

model_tensor* model_tensor_add(const model_tensor* tensor, double number) {
    return made([&] { return tensor->tensor + number; });
}

model_tensor* model_tensor_multiply(const model_tensor* tensor, const model_tensor* other) {
    return made([&] { return tensor->tensor * other->tensor; });
}

model_tensor* model_tensor_relu(const model_tensor* tensor) {
    return made([&] { return tensor->tensor.relu(); });
}

model_tensor* model_tensor_at(const void* impl) {
    return made([&] {
        auto* tensor = static_cast<c10::TensorImpl*>(const_cast<void*>(impl));
        return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(tensor));
    });
}

void model_tensor_free(model_tensor* tensor) { delete tensor; }

long model_tensor_read(const model_tensor* tensor, float* out, size_t capacity) {
    return caught(-1L, [&] { return read(tensor->tensor.detach(), out, capacity); });
}

model_tensor* model_tensor_gradient(const model_tensor* tensor, const model_tensor* leaf) {
    return made([&] {
        tensor->tensor.sum().backward();
        TORCH_CHECK(leaf->tensor.grad().defined(), "the tensor got no gradient");
        return leaf->tensor.grad().clone();
    });
}

const void* model_tensor_impl(const model_tensor* tensor) { return tensor->tensor.unsafeGetTensorImpl(); }

long model_tensor_references(const model_tensor* tensor) { return static_cast<long>(tensor->tensor.use_count()); }
