// Names of a tensor's dimensions. libtorch has none from 2.15 on.
#pragma once

#include <ATen/core/Tensor.h>

#if __has_include(<ATen/core/NamedTensor.h>)
#include <ATen/core/NamedTensor.h>
#define GRAPHPATCH_NAMES 1
#else
#define GRAPHPATCH_NAMES 0
#endif

namespace graphpatch {

#if GRAPHPATCH_NAMES

using NoNamesGuard = at::NoNamesGuard;

inline bool has_names(const at::Tensor& tensor) {
  return tensor.has_names();
}

#else

struct NoNamesGuard {
  NoNamesGuard() {
  }
};

inline bool has_names(const at::Tensor&) {
  return false;
}

#endif

} // namespace graphpatch
