// Molecular dynamics in small, as LAMMPS does it with a learned potential: a scripted model gives the energy of particles, the
// forces are its gradients, and a loop moves the particles. It knows nothing of libgraphpatch.
//
//   dynamics MODEL.pt INPUTS.pt OUT.pt [STEPS] [--inside]
//
// INPUTS.pt holds the positions. OUT.pt is a tuple with (energy, forces) for each step. With --inside the model itself takes
// the gradients, and returns (energy, forces).

#include "host.h"

#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <cstring>

namespace {

// Energy and forces at these positions.
std::pair<at::Tensor, at::Tensor> evaluate(torch::jit::Module& model, const at::Tensor& positions, bool inside) {
    if (inside) {
        const auto result = model.forward({positions.detach()}).toTuple();
        return {result->elements()[0].toTensor(), result->elements()[1].toTensor()};
    }
    const auto leaf = positions.detach().requires_grad_();
    const auto energy = model.forward({leaf}).toTensor();
    return {energy, -torch::autograd::grad({energy}, {leaf})[0]};
}

void run(int argc, char** argv) {
    if (argc < 4) throw std::runtime_error("usage: dynamics MODEL.pt INPUTS.pt OUT.pt [STEPS] [--inside]");
    auto model = host::load(argv[1]);
    auto positions = host::read_inputs(argv[2]).at(0).toTensor();
    const int steps = argc > 4 ? std::atoi(argv[4]) : 8;
    const bool inside = argc > 5 && std::strcmp(argv[5], "--inside") == 0;
    auto velocities = at::zeros_like(positions);
    std::vector<c10::IValue> trajectory;
    for (int step = 0; step < steps; ++step) {
        const auto [energy, forces] = evaluate(model, positions, inside);
        velocities = velocities + 0.01 * forces.detach();
        positions = positions + 0.01 * velocities;
        trajectory.push_back(host::tuple({energy.detach().clone(), forces.detach().clone()}));
    }
    host::write_bytes(argv[3], torch::jit::pickle_save(host::tuple(std::move(trajectory))));
}

}  // namespace

int main(int argc, char** argv) {
    return host::guarded("dynamics", [&] { return run(argc, argv); });
}
