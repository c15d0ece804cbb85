// Whether libtorch's headers are there.
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

// What is compiled with libtorch's headers and what is compiled without them are different classes; a program may have
// files of both kinds.
#if GRAPHPATCH_TORCH
#define GRAPHPATCH_NAMESPACE with_torch
#else
#define GRAPHPATCH_NAMESPACE without_torch
#endif
