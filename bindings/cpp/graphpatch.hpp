// libgraphpatch for C++: look inside, and change, any running libtorch model. C++17, header-only, over graphpatch.h.
//
//   #include <graphpatch.hpp>
//
//   graphpatch::Session session;                                       // attached to this process's libtorch
//   auto recording = session.recording();
//   module.forward(inputs);                                            // TorchScript, or torch::nn with Scope lines
//   std::cout << session.graphs()[0];                                  // the tree
//   auto patch = session.patch(graphpatch::zero("layers_3.mlp.output")); // holds as long as `patch` lives
//
// Objects are handles that can be moved and not copied, but for descriptions (Spec, Value, Node), which can. What cannot
// be done throws graphpatch::Error. Unless it says otherwise, an object may be used from any thread, by one at a time.
//
// Where libtorch's headers can be included, values are at::Tensor, and Scope, Root and call() show torch::nn modules.
// Otherwise values are graphpatch::Array, and all else stays the same. Define GRAPHPATCH_TORCH as 0 or 1 to choose.
//
// Link with libgraphpatch (`find_package(graphpatch)` or `pkg-config graphpatch`).
#pragma once

#include "graphpatch/config.hpp"

#include "graphpatch/array.hpp"
#include "graphpatch/error.hpp"
#include "graphpatch/graph.hpp"
#include "graphpatch/patch.hpp"
#include "graphpatch/session.hpp"
#include "graphpatch/spec.hpp"
#include "graphpatch/value.hpp"

#if GRAPHPATCH_TORCH
#include "graphpatch/aside.hpp"
#include "graphpatch/call.hpp"
#include "graphpatch/run.hpp"
#include "graphpatch/scope.hpp"
#endif
