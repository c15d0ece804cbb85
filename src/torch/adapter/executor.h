// A TorchScript function's executor, which has a plan of ours beside libtorch's own plans.
#pragma once

#include "instrument.h"

#include <torch/csrc/jit/runtime/graph_executor.h>

#include <memory>
#include <vector>

namespace graphpatch {

// A function whose calls may be runs: its instrumented plan, and the core's handle for it. Never changed after it was made.
struct ScriptRoot {
  std::string note; // a note for the user; empty if there is none
  bool waits = false; // for parallel tasks: what follows may run on another thread
  torch::jit::ExecutionPlan plan;
  std::shared_ptr<Scope> scope;
  std::vector<std::shared_ptr<Scope>> scopes; // all that the plan names: a task's code (fork) is made when the task starts
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

// The root for the function on this thread (whose autocast mode matters, too), which is instrumented at its first call. NULL if
// it cannot be. `is_new` is set if this call instrumented it.
std::shared_ptr<const ScriptRoot> root_of(torch::jit::GraphFunction& function, const c10::ClassTypePtr& type, bool& is_new);

// Whether calls of the function in a run have our plan.
bool has_our_plan(torch::jit::GraphFunction& function);

std::string qualified(const c10::ClassTypePtr& type);

} // namespace graphpatch
