// 03: a program without modules. What a thread calls while a `Run` lives is one run; gradients go through a patched value.
#include <torch/types.h>

#include <graphpatch.hpp>
#include <iostream>

torch::Tensor encode(torch::Tensor x, const torch::Tensor& weight) {
    graphpatch::Run run("encoder", {{"x", x}});
    return run.output(torch::tanh(x.matmul(weight)));
}

int main() try {
    torch::manual_seed(0);
    const auto weight = torch::ones({3, 2}).requires_grad_();
    graphpatch::Session session;
    {
        auto recording = session.recording();
        encode(torch::ones({1, 3}), weight);
    }
    std::cout << session.graphs()["encoder"];

    auto half = session.patch(graphpatch::custom("matmul", [](const torch::Tensor& value) { return value * 0.5; }));
    encode(torch::ones({1, 3}), weight).sum().backward();
    std::cout << "gradient " << weight.grad()[0][0].item<float>() << '\n';
    return 0;
} catch (const std::exception& error) {
    std::cerr << "03-plain: " << error.what() << '\n';
    return 1;
}
