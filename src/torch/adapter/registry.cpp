// Reads a torch::nn::Module while one of its members is called, since the module may be gone afterwards. Its tensors are kept,
// by identity, with their paths.
#include "registry.h"

#include <algorithm>
#include <array>
#include <mutex>

namespace graphpatch {

std::atomic<uint64_t> registry_generation{0};

static std::mutex registry_mutex;
// Kept as long as the process lives, since threads may still call operations while the process ends.
static NeverDestroyed<std::shared_ptr<const Registry>> storage;
static auto& registry = storage.value;
static size_t models = 0;

static GpRoot* define_root(const Scope& scope, const std::string& name, const std::vector<std::string>& paths) {
  std::vector<GpStr> texts;
  for (const std::string& path : paths)
    texts.push_back(gp_str(path));
  GpRootInfo info{scope.handle(), gp_str(name), texts.data(), texts.size()};
  return core->root_define(&info);
}

// The root of what is called outside of all models.
static GpRoot* define_root(const std::vector<std::string>& paths) {
  static Scope* scope = new Scope("", "", "", {}); // for the life of the process
  return define_root(*scope, "operations", paths);
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

// One module, as the model holds it.
struct Member {
  std::string path;
  const torch::nn::Module* module;
};

static std::vector<Parameter> read(const torch::nn::Module& root, std::vector<Member>& members) {
  std::vector<Parameter> held;
  root.apply(
      [&](const std::string& path, const torch::nn::Module& module) {
        members.push_back({path, &module});
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

// The module's class, without its namespaces and without what a template was given.
static std::string short_class(const torch::nn::Module& module) {
  std::string name;
  size_t depth = 0;
  for (const char each : module.name()) {
    depth += each == '<' || each == '(';
    if (depth == 0)
      name = each == ':' ? std::string() : name + each;
    depth -= each == '>' || each == ')';
  }
  return name;
}

// Containers that only hold modules. Nobody calls them, so they are no scopes.
static bool is_called(const std::string& class_name) {
  static const std::array<std::string, 4> kHolders{"ModuleListImpl", "ModuleDictImpl", "ParameterListImpl",
                                                   "ParameterDictImpl"};
  return std::find(kHolders.begin(), kHolders.end(), class_name) == kHolders.end();
}

static std::string path_above(const std::string& path) {
  const auto dot = path.rfind('.');
  return dot == std::string::npos ? std::string() : path.substr(0, dot);
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
    for (const auto& entry : old.modules) {
      const size_t its = entry.second->model;
      if (its == model)
        known_.emplace(entry.second->path, entry);
      else if (entry.second->is_alive())
        next_->modules.insert(entry);
      if (its == model || entry.second->is_alive())
        next_->models[its] = old.models.at(its);
    }
  }

  // Adds the model's modules, the outermost one first, and each before those that it holds.
  void add_modules(const std::vector<Member>& members, const std::optional<WeakTensor>& witness) {
    for (const Member& member : members) {
      std::shared_ptr<const KnownModule> known;
      const auto before = known_.find(member.path);
      if (before != known_.end() && before->second.first == member.module && before->second.second->is_alive())
        known = before->second.second; // the same object, since threads know their calls by its address
      const std::string class_name = short_class(*member.module);
      if (!known || known->class_name != class_name)
        known = describe(member, class_name, witness);
      if (is_called(class_name) || member.path.empty()) {
        called_.emplace(member.path, known);
        next_->modules.emplace(member.module, known); // a module that the model holds twice keeps its first path
      }
    }
  }

  // Makes the root of the model's own runs.
  void add_model(const std::string& class_name, const std::vector<Parameter>& held) {
    auto made = std::make_shared<Model>();
    made->class_name = class_name;
    const auto before = next_->models[model_];
    if (before)
      made->paths = before->paths;
    if (before && before->class_name == class_name) {
      made->scope = before->scope;
      made->name = before->name;
    } else {
      made->scope = std::make_shared<Scope>("", "", class_name, std::vector<std::string>());
      made->name = free_name(class_name);
    }
    std::unordered_map<std::string, size_t> indices;
    for (size_t i = 0; i < made->paths.size(); ++i)
      indices.emplace(made->paths[i], i);
    made->identities.resize(made->paths.size());
    for (const Parameter& one : held) {
      const std::string path = join_path(one.module, one.name);
      const auto index = indices.emplace(path, made->paths.size());
      if (index.second) {
        made->paths.push_back(path);
        made->identities.push_back(nullptr);
      }
      made->identities[index.first->second] = one.tensor.unsafeGetTensorImpl();
    }
    const auto holds_another = [&](const auto& one) {
      return std::any_of(called_.begin(), called_.end(), [&](const auto& other) { return other.second->above == one.second; });
    };
    made->n_leaves = called_.size() - std::count_if(called_.begin(), called_.end(), holds_another);
    made->root = define_root(*made->scope, made->name, made->paths);
    next_->models[model_] = made;
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
  // A name for the root that no other living model has.
  std::string free_name(const std::string& class_name) const {
    for (size_t number = 1;; ++number) {
      const std::string name = class_name + (number == 1 ? "" : "#" + std::to_string(number)) + ".forward";
      const auto has_it = [&](const auto& entry) { return entry.second && entry.second->name == name; };
      if (std::none_of(next_->models.begin(), next_->models.end(), has_it))
        return name;
    }
  }

  // The module at this path, or the nearest one around it that is called.
  std::shared_ptr<const KnownModule> called_at(std::string path) const {
    for (;; path = path_above(path)) {
      const auto found = called_.find(path);
      if (found != called_.end() || path.empty())
        return found == called_.end() ? nullptr : found->second;
    }
  }

  std::shared_ptr<const KnownModule> describe(const Member& member, const std::string& class_name,
                                              const std::optional<WeakTensor>& witness) {
    auto made = std::make_shared<KnownModule>();
    made->path = member.path;
    made->class_name = class_name;
    made->model = model_;
    made->module = member.module->weak_from_this();
    if (made->module.expired())
      made->tensor = witness;
    if (!member.path.empty())
      made->above = called_at(path_above(member.path));
    return made;
  }

  std::shared_ptr<const Owner> owner_of(const Parameter& one, const std::string& below) {
    auto& owner = owners_[below];
    const auto known = called_at(one.module);
    if (owner && owner->module != known)
      owner = nullptr;
    if (!owner && !one.module.empty()) {
      auto made = std::make_shared<Owner>();
      made->module = known;
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
  std::unordered_map<std::string, std::pair<const void*, std::shared_ptr<const KnownModule>>> known_; // before, by path
  std::unordered_map<std::string, std::shared_ptr<const KnownModule>> called_; // by path
};

static bool same_modules(const Registry& one, const Registry& other) {
  return one.modules.size() == other.modules.size() &&
         std::all_of(one.modules.begin(), one.modules.end(), [&](const auto& entry) {
           const auto found = other.modules.find(entry.first);
           return found != other.modules.end() && found->second == entry.second;
         });
}

void register_module(const void* pointer) {
  const auto& module = *static_cast<const torch::nn::Module*>(pointer);
  std::vector<Member> members;
  const auto held = read(module, members);
  if (held.empty())
    return;
  const auto old = present_registry();
  const Lock lock(registry_mutex);
  size_t model = 0;
  if (registry != old || !model_of(*old, held, model)) // if another thread has changed it meanwhile, the next call reads again
    return;
  // The paths of a further model begin with its class and number; those of the first model have no such prefix.
  const std::string class_name = short_class(module);
  Update update(*old, model, model == 0 ? "" : class_name + "#" + std::to_string(model + 1));
  update.add_modules(members, WeakTensor(held.front().tensor.getIntrusivePtr()));
  for (const Parameter& one : held)
    update.add(one);
  const auto next = update.finish();
  models = std::max(models, model + 1);
  if (next->paths == old->paths && next->identities == old->identities && same_modules(*next, *old))
    return;
  update.add_model(class_name, held);
  next->root = define_root(next->paths);
  registry = next;
  ++registry_generation;
}

} // namespace graphpatch
