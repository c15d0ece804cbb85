// Looks inside a C++ transformer, switches an attention head off, and patches one run's values into another.
//
//   transformer [STATE.pt [OUT.pt]]
//
// STATE.pt is a torch.save'd tuple of weights by name and token ids (without it, both are random); OUT.pt receives the
// logits: as they are, without head 1 of layer 0, and with the other sentence's layer 1.
#include "transformer.hpp"

#include <torch/serialize.h>

#include <fstream>
#include <iostream>
#include <iterator>

namespace {

c10::IValue read(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw std::runtime_error("cannot open " + file);
    return torch::pickle_load({std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
}

void set_weights(Gpt& model, const c10::Dict<c10::IValue, c10::IValue>& weights) {
    auto parameters = model->named_parameters();
    for (const auto& entry : weights) parameters[entry.key().toStringRef()].copy_(entry.value().toTensor());
}

int run(int argc, char** argv) {
    torch::NoGradGuard no_grad;
    torch::manual_seed(0);
    Gpt model;
    model->eval();
    auto ids = torch::randint(50, {2, 8});
    if (argc > 1) {
        const auto state = read(argv[1]);
        set_weights(model, state.toTupleRef().elements()[0].toGenericDict());
        ids = state.toTupleRef().elements()[1].toTensor();
    }
    const auto bare = model(ids);

    graphpatch::Session session;
    graphpatch::Root root(model, "Gpt");
    {
        auto recording = session.recording();
        model(ids);
    }
    const graphpatch::Node tree = session.graphs()["Gpt"];
    std::cout << tree;

    // Switches head 1 of layer 0 off: matmul_1 holds the heads' results, of shape (batch, heads, tokens, width).
    torch::Tensor without_head;
    {
        auto patch = session.patch(graphpatch::zero("layers_0.attn.matmul_1").slice("[:, 1]"));
        without_head = model(ids);
    }
    // Puts the output of layer 1 for one sentence in the place of that for another.
    auto probe = session.probe("layers_1.output");
    model(ids.flip(0));
    auto patched = session.patch(graphpatch::replace("layers_1.output", probe.value()));
    const auto swapped = model(ids);
    patched.remove();

    std::cerr << "without head 1 of layer 0 the logits change by up to " << (without_head - bare).abs().max().item<float>()
              << "\nwith layer 1 of the other sentence they are the other's: "
              << (torch::equal(swapped, bare.flip(0)) ? "yes" : "no")
              << "\nwithout patches they are as before: " << (torch::equal(model(ids), bare) ? "yes" : "no") << '\n';
    if (argc > 2) {
        const auto out = torch::pickle_save(c10::ivalue::Tuple::create({bare, without_head, swapped}));
        std::ofstream(argv[2], std::ios::binary).write(out.data(), static_cast<std::streamsize>(out.size()));
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "transformer: " << error.what() << '\n';
        return 1;
    }
}
