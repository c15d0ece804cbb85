// Finds the module that a parameter belongs to, for programs that report no module calls.
#pragma once

#include "adapter.h"

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace graphpatch {

// A module with parameters or buffers of its own; the scope of the operations that read them.
struct Owner {
  GpScope* scope = nullptr;
  std::string path; // below the root: layers.0.fc
  std::string name; // as node paths have it: layers_0_fc
  ~Owner() {
    if (scope)
      core->scope_free(scope);
  }
};

struct Registered {
  size_t index = 0;                   // among the root's parameters
  std::shared_ptr<const Owner> owner; // null: the root's own, or one that several modules share
  size_t model = 0;
  // Weak, but keeps the address from being used again.
  WeakTensor tensor;
};

// The known modules at one time. Never changed after it was made; a thread keeps the registry that it began with.
struct Registry {
  std::unordered_map<const void*, Registered> tensors;
  std::vector<std::string> paths;        // by index; indices stay what they are
  std::vector<const void*> identities;   // by index; null where there is no tensor any more
  GpRoot* root = nullptr;
  ~Registry() {
    if (root)
      core->root_free(root);
  }
};

// How many registries there have been.
extern std::atomic<uint64_t> registry_generation;
std::shared_ptr<const Registry> present_registry();
// Reads the parameters and buffers of a whole torch::nn::Module.
void register_module(const void* module);

} // namespace graphpatch
