// The modules of finished C++ programs, and the module that a parameter belongs to.
#pragma once

#include "instrument.h"

#include <torch/nn/module.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace graphpatch {

// A torch::nn::Module, known by its address.
struct KnownModule {
  std::string path; // below its model's outermost module, for which this is empty
  std::string class_name;
  size_t model = 0;
  // The nearest module around it that is called. Null for the outermost one.
  std::shared_ptr<const KnownModule> above;
  // Whether calls of its forward were seen. If so, an operation outside of them is not in its scope.
  mutable std::atomic<bool> was_called{false};
  // The first keeps the address from being used again, where a shared_ptr holds the module. An object on the stack is taken for
  // alive as long as one of its tensors is.
  std::weak_ptr<const torch::nn::Module> module;
  std::optional<WeakTensor> tensor;

  bool is_alive() const {
    return tensor ? !tensor->expired() : !module.expired();
  }
};

// A module with all that it holds, as the program registered it: the root of the runs that its calls are.
struct Model {
  std::string class_name; // without namespaces
  std::string name; // of its runs' root
  std::vector<std::string> paths; // of its parameters, by index; indices stay what they are
  std::vector<const void*> identities; // by index; null where there is no tensor any more
  size_t n_leaves = 0; // how many of its modules hold no other module
  std::shared_ptr<Scope> scope;
  GpRoot* root = nullptr;
  ~Model() {
    if (root)
      core->root_free(root);
  }
};

// A module with parameters or buffers of its own; the scope of the operations that read them.
struct Owner {
  std::shared_ptr<const KnownModule> module;
  GpScope* scope = nullptr;
  std::string path; // below the root: layers.0.fc
  std::string name; // as node paths have it: layers_0_fc
  ~Owner() {
    if (scope)
      core->scope_free(scope);
  }
};

struct Registered {
  size_t index = 0; // among the root's parameters
  std::shared_ptr<const Owner> owner; // null: the root's own, or one that several modules share
  size_t model = 0;
  // Weak, but keeps the address from being used again.
  WeakTensor tensor;
};

// The known modules at one time. Never changed after it was made; a thread keeps the registry that it began with.
struct Registry {
  std::unordered_map<const void*, Registered> tensors;
  std::vector<std::string> paths; // by index; indices stay what they are
  std::vector<const void*> identities; // by index; null where there is no tensor any more
  std::unordered_map<const void*, std::shared_ptr<const KnownModule>> modules; // by address
  std::map<size_t, std::shared_ptr<const Model>> models;
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
