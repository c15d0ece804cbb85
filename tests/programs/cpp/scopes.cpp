// The example's transformer in a program that has scopes but opens no session, for use under `graphpatch run`.
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
