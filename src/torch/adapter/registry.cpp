// Reads a torch::nn::Module while one of its members is called, since the module may be gone afterwards. Its tensors are kept,
// by identity, with their paths.
#include "instrument.h"
#include "registry.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <mutex>

namespace graphpatch {

std::atomic<uint64_t> registry_generation{0};

static std::mutex registry_mutex;
// Kept as long as the process lives, since threads may still call operations while the process ends.
static NeverDestroyed<std::shared_ptr<const Registry>> storage;
static auto& registry = storage.value;
static size_t models = 0;

static GpRoot* define_root(const std::vector<std::string>& paths) {
  static Scope* scope = new Scope("", "", "", {}); // for the life of the process
  std::vector<GpStr> texts;
  for (const std::string& path : paths)
    texts.push_back(gp_str(path));
  GpRootInfo info{scope->handle(), gp_str("operations"), texts.data(), texts.size()};
  return core->root_define(&info);
}

std::shared_ptr<const Registry> present_registry() {
  const Lock lock(registry_mutex);
  if (!registry) {
    auto first = std::make_shared<Registry>();
    first->root = define_root(first->paths);
    registry = first;
  }
  return registry;
}

// One parameter or buffer, as the model holds it.
struct Parameter {
  std::string module; // the attribute path of its module
  std::string name;
  std::string class_name;
  at::Tensor tensor;
};

static std::vector<Parameter> read(const torch::nn::Module& root) {
  std::vector<Parameter> held;
  root.apply(
      [&](const std::string& path, const torch::nn::Module& module) {
        for (bool buffers : {false, true})
          for (const auto& item : buffers ? module.named_buffers(false) : module.named_parameters(false))
            if (item.value().defined())
              held.push_back({path, item.key(), module.name(), item.value()});
      },
      std::string());
  return held;
}

static std::string underscored(std::string path) {
  std::replace(path.begin(), path.end(), '.', '_');
  return path;
}

// The model that these tensors belong to, known or new. Returns false if they are only a part of a known model.
static bool model_of(const Registry& old, const std::vector<Parameter>& held, size_t& model) {
  std::unordered_map<size_t, size_t> living;
  for (const auto& entry : old.tensors)
    if (!entry.second.tensor.expired())
      ++living[entry.second.model];
  std::unordered_map<const void*, size_t> distinct;
  for (const Parameter& one : held)
    distinct.emplace(one.tensor.unsafeGetTensorImpl(), 0);
  for (const Parameter& one : held) {
    auto known = old.tensors.find(one.tensor.unsafeGetTensorImpl());
    if (known == old.tensors.end())
      continue;
    model = known->second.model;
    return distinct.size() >= living[model];
  }
  model = models;
  return true;
}

// The class of the outermost module, without its namespaces.
static std::string class_of_root(const torch::nn::Module& module, const std::vector<Parameter>& held) {
  std::string name;
  for (const Parameter& one : held)
    if (one.module.empty())
      name = one.class_name;
  if (name.empty())
    name = module.name();
  const auto colon = name.rfind(':');
  return colon == std::string::npos ? name : name.substr(colon + 1);
}

// Makes the registry that replaces `old`, in which one model is read anew.
class Update {
public:
  // Takes over from the old registry: paths and their indices, owners, and the living tensors of the other models.
  Update(const Registry& old, size_t model, const std::string& prefix)
      : next_(std::make_shared<Registry>()), model_(model), prefix_(prefix) {
    next_->paths = old.paths;
    for (size_t i = 0; i < next_->paths.size(); ++i)
      indices_.emplace(next_->paths[i], i);
    for (const auto& entry : old.tensors) {
      const Registered& known = entry.second;
      if (known.owner)
        owners_[known.owner->path] = known.owner;
      if (known.model != model && !known.tensor.expired())
        next_->tensors.emplace(entry.first, known);
    }
  }

  void add(const Parameter& one) {
    const std::string below = join_path(prefix_, one.module);
    const auto owner = owner_of(one, below);
    const std::string path = join_path(below, one.name);
    const auto index = indices_.emplace(path, next_->paths.size());
    if (index.second)
      next_->paths.push_back(path);
    Registered entry{index.first->second, owner, model_, WeakTensor(one.tensor.getIntrusivePtr())};
    const auto added = next_->tensors.emplace(one.tensor.unsafeGetTensorImpl(), entry);
    if (!added.second && added.first->second.owner != owner)
      added.first->second.owner = nullptr; // several modules share it, so the one that is at work cannot be known
  }

  std::shared_ptr<Registry> finish() {
    next_->identities.resize(next_->paths.size());
    for (const auto& entry : next_->tensors)
      next_->identities[entry.second.index] = entry.first;
    return next_;
  }

private:
  std::shared_ptr<const Owner> owner_of(const Parameter& one, const std::string& below) {
    auto& owner = owners_[below];
    if (!owner && !one.module.empty()) {
      auto made = std::make_shared<Owner>();
      made->path = below;
      made->name = underscored(one.module);
      GpScopeInfo info{gp_str(one.module), gp_str(below), gp_str(one.class_name), nullptr, 0};
      uint64_t family;
      made->scope = core->scope_define(&info, &family);
      owner = made;
    }
    return owner;
  }

  std::shared_ptr<Registry> next_;
  size_t model_;
  std::string prefix_;
  std::unordered_map<std::string, size_t> indices_;
  std::unordered_map<std::string, std::shared_ptr<const Owner>> owners_;
};

void register_module(const void* pointer) {
  const auto& module = *static_cast<const torch::nn::Module*>(pointer);
  const auto held = read(module);
  if (held.empty())
    return;
  const auto old = present_registry();
  const Lock lock(registry_mutex);
  size_t model = 0;
  if (registry != old || !model_of(*old, held, model)) // if another thread has changed it meanwhile, the next call reads again
    return;
  // The paths of a further model begin with its class and number; those of the first model have no such prefix.
  Update update(*old, model, model == 0 ? "" : class_of_root(module, held) + "#" + std::to_string(model + 1));
  for (const Parameter& one : held)
    update.add(one);
  const auto next = update.finish();
  models = std::max(models, model + 1);
  if (next->paths == old->paths && next->identities == old->identities)
    return;
  next->root = define_root(next->paths);
  registry = next;
  ++registry_generation;
}

} // namespace graphpatch
