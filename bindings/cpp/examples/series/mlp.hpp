// The model of the series: two layers, with one line for graphpatch at the top of `forward` and one at its end.
#pragma once

#include <torch/nn.h>

#include <graphpatch.hpp>

struct MlpImpl : torch::nn::Module {
    explicit MlpImpl(int64_t width)
        : up(register_module("up", torch::nn::Linear(width, 4 * width))),
          down(register_module("down", torch::nn::Linear(4 * width, width))) {}

    torch::Tensor forward(torch::Tensor x) {
        graphpatch::Scope scope(this, {{"x", x}});
        x = torch::relu(graphpatch::call(up, x));
        return scope.output(graphpatch::call(down, x));
    }

    torch::nn::Linear up, down;
};
TORCH_MODULE(Mlp);
