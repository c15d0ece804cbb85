// A TorchScript function's executor, with a plan of ours beside its own ones.
#pragma once

#include "instrument.h"

#include <torch/csrc/jit/runtime/graph_executor.h>

#include <memory>
#include <vector>

namespace graphpatch {

// A function whose calls may be runs: its instrumented plan, and what the core calls it. Never changed once made.
struct ScriptRoot {
  std::string note; // what a person should know of it; empty if there is nothing
  torch::jit::ExecutionPlan plan;
  std::shared_ptr<Scope> scope;
  GpRoot* handle = nullptr; // NULL: the function could not be instrumented, and runs untouched
  std::vector<std::vector<size_t>> parameters; // slots to walk from the module, in the order given to root_define

  ScriptRoot() = default;
  ScriptRoot(const ScriptRoot&) = delete;
  ScriptRoot& operator=(const ScriptRoot&) = delete;
  ~ScriptRoot() {
    if (handle)
      core->root_free(handle);
  }
};

// The root that the function is on this thread (its autocast mode decides, too), instrumented at its first call. NULL
// where it cannot be. `is_new`: this call did it.
std::shared_ptr<const ScriptRoot> root_of(torch::jit::GraphFunction& function, const c10::ClassTypePtr& type, bool& is_new);

std::string qualified(const c10::ClassTypePtr& type);

} // namespace graphpatch
