// A function with a backward of its own, whose backward knows nothing of patches inside its forward.
#pragma once

#include <torch/autograd.h>

struct Square : torch::autograd::Function<Square> {
    // x * x, in three operations.
    static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x) {
        context->save_for_backward({x});
        return x.mul(2).mul(x).div(2);
    }
    static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context, torch::autograd::tensor_list gradients) {
        return {gradients[0] * 2 * context->get_saved_variables()[0]};
    }
};
