// An operator `tests::square` with a backward of its own, as another library may have it. It knows nothing of libgraphpatch.
#include <torch/library.h>

#include "square.hpp"

namespace {

torch::Tensor square(const torch::Tensor& x) { return Square::apply(x); }

}  // namespace

TORCH_LIBRARY(tests, library) { library.def("square(Tensor x) -> Tensor"); }
TORCH_LIBRARY_IMPL(tests, Autograd, library) { library.impl("square", square); }
TORCH_LIBRARY_IMPL(tests, CPU, library) { library.impl("square", square); }
