// An instrumented copy of a TorchScript function: every call inlined, every scope between two markers.
#pragma once

#include "adapter.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <vector>

namespace graphpatch {

// An attribute path below another one; either may be empty.
inline std::string join_path(const std::string& above, const std::string& below) {
  return above.empty() ? below : below.empty() ? above : above + "." + below;
}

// The core's description of a scope, shared by the graph's markers and the root.
class Scope {
public:
  Scope(const std::string& module_path, const std::string& absolute_path, const std::string& class_name,
        const std::vector<std::string>& inputs);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  GpScope* handle() const {
    return handle_;
  }
  // Its bit among GpThread's scopes.
  uint64_t family() const {
    return family_;
  }

private:
  GpScope* handle_;
  uint64_t family_ = 0;
};

// Sets `root` to the function's own scope, and `lost` to a note about what the graph no longer shows, if anything. `keep` gets
// all scopes; they must live as long as the graph may be compiled. `waits` is set if it waits for parallel tasks.
std::shared_ptr<torch::jit::Graph> instrument(torch::jit::GraphFunction& function, const c10::ClassTypePtr& type,
                                              std::shared_ptr<Scope>& root, std::vector<std::shared_ptr<Scope>>& keep,
                                              std::string& lost, bool& waits);

void register_markers();

// In script.cpp: our plan of the root with this scope has begun on this thread, on that module.
void begin_waiting(const GpScope* scope, const c10::IValue& module);

} // namespace graphpatch
