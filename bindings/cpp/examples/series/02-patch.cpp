// 02: values are kept, and changed, while the model runs. Prints the sum of the output: bare, patched, and bare again.
#include "mlp.hpp"

#include <iostream>

int main() try {
    torch::manual_seed(0);
    torch::NoGradGuard no_grad;
    Mlp model(4);
    const auto x = torch::ones({2, 4});
    const auto sum = [&] { return model(x).sum().item<float>(); };
    graphpatch::Session session;
    graphpatch::Root root(model, "Mlp");

    std::cout << "bare " << sum() << '\n';
    {
        // Patches at one node act in the order in which they were made: the probe sees the value before the zero.
        auto probe = session.probe("relu");
        auto zero = session.patch(graphpatch::zero("relu").slice("[:, :8]"));
        auto add = session.patch("output=add:0.5");
        std::cout << "patched " << sum() << '\n';
        std::cout << "kept " << probe.value().sizes() << ", " << zero.counts().applied << " applied\n";
        zero.enable(false);  // from the next run on
        std::cout << "without the zero " << sum() << '\n';
    }
    std::cout << "bare again " << sum() << '\n';

    // A path that is not there is refused before anything runs, once the model is known.
    {
        auto recording = session.recording();
        model(x);
    }
    try {
        auto wrong = session.patch("rleu=zero");
    } catch (const graphpatch::Error& error) {
        std::cout << "refused: " << error.what() << '\n';
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "02-patch: " << error.what() << '\n';
    return 1;
}
