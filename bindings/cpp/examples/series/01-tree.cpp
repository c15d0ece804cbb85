// 01: the tree of a model, the code of a part of it, and a file of it for `graphpatch show` and `graphpatch view`.
//
//   01-tree [GRAPH.json]
#include "mlp.hpp"

#include <iostream>

int main(int argc, char** argv) try {
    torch::manual_seed(0);
    torch::NoGradGuard no_grad;
    Mlp model(4);
    graphpatch::Session session;
    graphpatch::Root root(model, "Mlp");
    {
        auto recording = session.recording();  // as long as this object lives
        model(torch::ones({2, 4}));
    }
    graphpatch::Graphs graphs = session.graphs();
    std::cout << graphs["Mlp"] << '\n' << graphs["Mlp"]["up"].code() << '\n';
    if (argc > 1) graphs.save(argv[1]);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "01-tree: " << error.what() << '\n';
    return 1;
}
