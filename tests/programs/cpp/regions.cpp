// Plain operations inside of a parallel region, and outside of it: compiled with OpenMP, as libtorch is.
//
//   regions before|after    what is computed inside comes before all other operations, or after some. Prints the sums of four
//                           results from inside, and of one from outside.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
    const bool after = argc > 1 && !std::strcmp(argv[1], "after");
    at::set_num_threads(4);
    at::Tensor x, inside[4], outside;
    const auto call = [&](const at::Tensor& in) { return at::relu(in); };
    if (after) x = at::ones({3});
    at::parallel_for(0, 4, 1, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) inside[i] = call(after ? x : at::ones({3}));
    });
    outside = call(at::ones({3}));
    for (const auto& result : inside) std::printf("%g ", result.sum().item<double>());
    std::printf("%g\n", outside.sum().item<double>());
}
