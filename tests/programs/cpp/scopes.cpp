// The example's transformer in a program that has scopes and opens no session: somebody else looks at it.
#include "transformer.hpp"

#include <iostream>

int main() {
    torch::NoGradGuard no_grad;
    torch::manual_seed(0);
    Gpt model;
    model->eval();
    graphpatch::Root root(model, "Gpt");
    const auto logits = model(torch::arange(8).unsqueeze(0));
    std::cout << logits.sizes() << '\n';
}
