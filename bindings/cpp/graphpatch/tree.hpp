// Root modules and the modules below them, with the handles that the library has for them.
#pragma once

#include "error.hpp"

#include <c10/util/Type.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <typeinfo>
#include <unordered_map>
#include <utility>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {
namespace detail {

using Module = torch::nn::Module;
using Names = std::vector<const char*>;

// The name of the module's class for readers, without the suffix `Impl` that libtorch's convention adds.
inline std::string class_name(const Module& module) {
    std::string name = c10::demangle(typeid(module).name());
    if (name.size() > 4 && name.compare(name.size() - 4, 4, "Impl") == 0) name.resize(name.size() - 4);
    return name;
}
inline std::string short_name(const Module& module) {
    const std::string name = class_name(module);
    const size_t at = name.find('<') == std::string::npos ? name.rfind("::") : std::string::npos;
    return at == std::string::npos ? name : name.substr(at + 2);
}

// The attribute path of `module` below `above`: the first one if there are several, empty if there is none.
inline std::string find_below(const Module& above, const Module* module) {
    for (const auto& child : above.named_children()) {
        if (!child.value()) continue;
        if (child.value().get() == module) return child.key();
        const std::string path = find_below(*child.value(), module);
        if (!path.empty()) return child.key() + "." + path;
    }
    return "";
}

// Whether two lists of input names are equal. A module normally uses the same names in all its calls, but it need not.
inline bool same_names(const std::vector<std::string>& names, const Names& other) {
    return names.size() == other.size() && std::equal(names.begin(), names.end(), other.begin());
}

// A module that is called from another module.
struct ScopeEntry {
    std::weak_ptr<const Module> module;
    bool owned = false;           // whether a shared_ptr owns the module, so that `module` shows when it is gone
    uint64_t run = 0;             // the run, if the module was not found in the tree: the next run looks again
    std::vector<std::string> inputs;
    std::shared_ptr<gp_scope> handle;
};

// The library's handle for a root, with the names of its inputs and parameters when it was made.
struct RootEntry {
    std::vector<std::string> inputs, parameters;
    std::shared_ptr<gp_root> handle;
};

struct ScopeKey {
    const Module* caller;
    const Module* module;
    bool operator==(const ScopeKey& other) const { return caller == other.caller && module == other.module; }
};
struct ScopeKeyHash {
    size_t operator()(const ScopeKey& key) const {
        return (reinterpret_cast<size_t>(key.caller) >> 4) * 31 + (reinterpret_cast<size_t>(key.module) >> 4);
    }
};

// A root's module, and the calls of modules below it that were seen. Runs on any number of threads may use it at once.
class Tree {
public:
    Tree(const Module& module, std::string name) : name_(std::move(name)), module_(&module), owner_(module.weak_from_this()) {
        owned_ = !owner_.expired();
    }

    const std::string& name() const noexcept { return name_; }
    const Module* module() const noexcept { return module_; }
    // Whether the module lives. If no shared_ptr owns it, the program has promised that it does.
    bool is_alive() const { return !owned_ || !owner_.expired(); }
    bool is_owned() const noexcept { return owned_; }
    // Keeps the module alive; empty if it is gone, or if no shared_ptr owns it.
    std::shared_ptr<const Module> owner() const noexcept { return owner_.lock(); }

    // The library's root for the module with these inputs and the parameters at these paths. `parameters` is NULL if nobody has
    // looked them up; then those of the last root are taken.
    std::shared_ptr<const RootEntry> root(const Names& inputs, const std::vector<std::string>* parameters) {
        auto entry = std::make_shared<RootEntry>();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (root_ && same_names(root_->inputs, inputs) && (!parameters || *parameters == root_->parameters)) return root_;
            if (root_) entry->parameters = root_->parameters;
        }
        if (parameters) entry->parameters = *parameters;
        else if (entry->parameters.empty()) entry->parameters = this->parameters().first;
        entry->inputs.assign(inputs.begin(), inputs.end());
        std::vector<const char*> paths;
        for (const std::string& path : entry->parameters) paths.push_back(path.c_str());
        const std::string class_name = detail::class_name(*module_);
        entry->handle = made<gp_root>(
            [&](gp_root** out) {
                return gp_root_new(name_.c_str(), class_name.c_str(), inputs.data(), inputs.size(), paths.data(), paths.size(),
                                   false, out);
            },
            gp_root_free);
        std::lock_guard<std::mutex> lock(mutex_);
        return root_ = entry;
    }

    // All parameters and buffers as they are now: attribute paths, and tensors.
    std::pair<std::vector<std::string>, std::vector<const void*>> parameters() const {
        const auto foreign = living();
        std::pair<std::vector<std::string>, std::vector<const void*>> found;
        add_parameters(*module_, "", found);
        for (const auto& [path, module] : foreign) add_parameters(*module, path + ".", found);
        return found;
    }

    // The scope of `module` when the first of `callers` (which has the innermost first) calls it; `inputs` are the names of its
    // arguments. A module that is below none of the callers is named `otherwise`; if that is empty, it is named by its class.
    // `note` is called with that name, and with whether the module's parameters can be known in later runs.
    template <class Note>
    std::shared_ptr<ScopeEntry> scope(const std::vector<const Module*>& callers, const Module& module,
                                      const std::string& otherwise, const Names& inputs, uint64_t run, Note note) {
        const ScopeKey key{callers.front(), &module};
        {
            std::lock_guard<std::mutex> lock(mutex_);
            auto found = scopes_.find(key);
            if (found != scopes_.end() && is_current(*found->second, inputs, run)) return found->second;
        }
        auto entry = std::make_shared<ScopeEntry>();
        entry->module = module.weak_from_this();
        entry->owned = !entry->module.expired();
        entry->inputs.assign(inputs.begin(), inputs.end());
        std::string path;
        for (const Module* caller : callers)
            if (path.empty()) path = find_below(*caller, &module);
        std::string absolute = find_below(*module_, &module);
        if (path.empty()) {
            entry->run = run;
            path = otherwise.empty() ? short_name(module) : otherwise;
            note(path, entry->owned);
        }
        if (absolute.empty()) absolute = foreign_path(module, path);
        const std::string class_name = detail::class_name(module);
        entry->handle = made<gp_scope>(
            [&](gp_scope** out) {
                return gp_scope_new(path.c_str(), absolute.c_str(), class_name.c_str(), inputs.data(), inputs.size(), false,
                                    out);
            },
            gp_scope_free);
        std::lock_guard<std::mutex> lock(mutex_);
        if (scopes_.size() >= most_) forget();
        scopes_[key] = entry;
        return entry;
    }

    // The number of a run that begins now.
    uint64_t next_run() noexcept { return runs_.fetch_add(1, std::memory_order_relaxed) + 1; }
    // Whether the last run asked for parameters, or called a module whose parameters were not known. Then the next run first
    // checks whether they are still the same.
    std::atomic<bool> by_parameter{false};
    // How many roots there were when it was last asked whose part the module is.
    std::atomic<size_t> known_roots{0};

private:
    static bool is_current(const ScopeEntry& entry, const Names& inputs, uint64_t run) {
        // If no shared_ptr owns the module, it may be gone, and another module may lie at its address.
        return entry.owned && !entry.module.expired() && same_names(entry.inputs, inputs) &&
               (entry.run == 0 || entry.run == run);
    }
    // The path of a module that is not below the root's, for its parameters, which are known from the next run on: `name`, or
    // that with a number. A module that no shared_ptr owns may be gone at any time, so that nothing is kept of it.
    std::string foreign_path(const Module& module, const std::string& name) {
        const auto foreign = living();
        std::vector<std::string> used;
        for (const auto& child : module_->named_children()) used.push_back(child.key());
        for (const auto& [path, held] : foreign) {
            if (held.get() == &module) return path;
            const std::string inner = find_below(*held, &module);
            if (!inner.empty()) return path + "." + inner;
            used.push_back(path);
        }
        const auto owner = module.weak_from_this();
        if (owner.expired()) return name;
        std::string path = name;
        for (int number = 1; std::find(used.begin(), used.end(), path) != used.end(); ++number)
            path = name + "_" + std::to_string(number);
        std::lock_guard<std::mutex> lock(mutex_);
        foreign_.erase(
            std::remove_if(foreign_.begin(), foreign_.end(), [](const auto& known) { return known.second.expired(); }),
            foreign_.end());
        foreign_.emplace_back(path, owner);
        by_parameter = true;
        return path;
    }
    // Held by the answer, since a module's destructor is code of the program's, and must not run under the lock.
    std::vector<std::pair<std::string, std::shared_ptr<const Module>>> living() const {
        std::vector<std::pair<std::string, std::shared_ptr<const Module>>> found;
        std::lock_guard<std::mutex> lock(mutex_);
        for (const auto& [path, owner] : foreign_)
            if (auto module = owner.lock()) found.emplace_back(path, std::move(module));
        return found;
    }
    // Removes the entries of modules that are gone.
    void forget() {
        for (auto at = scopes_.begin(); at != scopes_.end();)
            at = at->second->module.expired() ? scopes_.erase(at) : std::next(at);
        most_ = 2 * scopes_.size() + 64;
    }
    template <class Found>
    static void add_parameters(const Module& module, const std::string& prefix, Found& found) {
        const auto add = [&](const auto& dict) {
            for (const auto& item : dict) {
                found.first.push_back(prefix + item.key());
                found.second.push_back(item.value().defined() ? item.value().unsafeGetTensorImpl() : nullptr);
            }
        };
        add(module.named_parameters(false));
        add(module.named_buffers(false));
        for (const auto& child : module.named_children())
            if (child.value()) add_parameters(*child.value(), prefix + child.key() + ".", found);
    }

    const std::string name_;
    const Module* const module_;
    std::weak_ptr<const Module> owner_;
    bool owned_ = false;

    mutable std::mutex mutex_;
    std::shared_ptr<const RootEntry> root_;
    // Modules that runs call although they are not below the root's module, each with the path that it was given.
    std::vector<std::pair<std::string, std::weak_ptr<const Module>>> foreign_;
    std::unordered_map<ScopeKey, std::shared_ptr<ScopeEntry>, ScopeKeyHash> scopes_;
    size_t most_ = 64;
    std::atomic<uint64_t> runs_{0};
};

// The roots of this process, by their module. Never destroyed: a thread may run a model while the process ends.
class Roots {
public:
    static Roots& get() {
        static Roots* const roots = new Roots();
        return *roots;
    }

    // GP_STATUS_STATE when the module is registered already.
    std::shared_ptr<Tree> add(const Module& module, const std::string& name) {
        std::unique_lock<std::shared_mutex> lock(mutex_);
        Known& known = known_[&module];
        if (known.tree && known.registered && known.tree->is_alive())
            throw Error(GP_STATUS_STATE, "the module is a root already, \"" + known.tree->name() + "\": keep that one");
        known = {std::make_shared<Tree>(module, name), true};
        ++added_;
        return known.tree;
    }
    void remove(const std::shared_ptr<Tree>& tree) {
        std::unique_lock<std::shared_mutex> lock(mutex_);
        const auto found = known_.find(tree->module());
        if (found != known_.end() && found->second.tree == tree) known_.erase(found);
    }
    // The root of this module that was registered, if any.
    std::shared_ptr<Tree> registered(const Module& module) const {
        std::shared_lock<std::shared_mutex> lock(mutex_);
        const auto found = known_.find(&module);
        const bool is = found != known_.end() && found->second.registered && found->second.tree->is_alive();
        return is ? found->second.tree : nullptr;
    }
    // The registered root of this module, or else a root with the name of its class: a module that is called outside of any run
    // begins one.
    std::shared_ptr<Tree> outermost(const Module& module) {
        {
            std::shared_lock<std::shared_mutex> lock(mutex_);
            const auto found = known_.find(&module);
            if (found != known_.end() && found->second.tree->is_alive()) return found->second.tree;
        }
        auto tree = std::make_shared<Tree>(module, short_name(module));
        if (!tree->is_owned()) return tree; // not kept, because nothing would show when the module is gone
        std::unique_lock<std::shared_mutex> lock(mutex_);
        if (known_.size() >= most_) forget();
        known_[&module] = {tree, false};
        ++added_;
        return tree;
    }

    // Calls `body` with each root of which `tree`'s module is a part, and its attribute path there. Asks again only when there
    // are new roots.
    template <class Body>
    void around(Tree& tree, Body body) const {
        std::vector<std::shared_ptr<Tree>> trees;
        {
            std::shared_lock<std::shared_mutex> lock(mutex_);
            if (tree.known_roots.exchange(added_) == added_) return;
            for (const auto& [module, known] : known_)
                if (known.tree.get() != &tree) trees.push_back(known.tree);
        }
        for (const auto& other : trees) {
            const auto held = other->owner();
            if (!held && other->is_owned()) continue;
            const std::string path = find_below(held ? *held : *other->module(), tree.module());
            if (!path.empty()) body(other->name(), path);
        }
    }

private:
    struct Known {
        std::shared_ptr<Tree> tree;
        bool registered = false;
    };
    void forget() {
        for (auto at = known_.begin(); at != known_.end();) at = at->second.tree->is_alive() ? std::next(at) : known_.erase(at);
        most_ = 2 * known_.size() + 64;
    }

    mutable std::shared_mutex mutex_;
    std::unordered_map<const Module*, Known> known_;
    size_t added_ = 0; // how often a root was added
    size_t most_ = 64;
};

} // namespace detail
} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
