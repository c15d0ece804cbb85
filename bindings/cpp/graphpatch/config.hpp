// Finds out whether libtorch's headers can be included.
#pragma once

#include <graphpatch.h>

#ifndef GRAPHPATCH_TORCH
#if defined(__has_include)
#if __has_include(<ATen/core/Tensor.h>) && __has_include(<torch/nn/module.h>)
#define GRAPHPATCH_TORCH 1
#endif
#endif
#endif
#ifndef GRAPHPATCH_TORCH
#define GRAPHPATCH_TORCH 0
#endif

// With libtorch's headers and without them, the classes differ. Each kind has a namespace of its own, because one program may
// have source files of both kinds.
#if GRAPHPATCH_TORCH
#define GRAPHPATCH_NAMESPACE with_torch
#else
#define GRAPHPATCH_NAMESPACE without_torch
#endif
