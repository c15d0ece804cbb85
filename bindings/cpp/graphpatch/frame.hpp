// The open calls of this thread, from the root's to the innermost one, and what the library wants of each.
#pragma once

#include "put_back.hpp"
#include "structure.hpp"
#include "tree.hpp"

#include <initializer_list>
#include <iterator>
#include <memory>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// The name of an argument, and a reference to its value. Patches may change a value that is not const.
class Input {
public:
    template <class T>
    Input(const char* name, T& value) : name_(name), value_(&value), add_(&add<T>), take_(&take<T>) {}
    template <class T>
    Input(const char* name, const T& value) : name_(name), value_(const_cast<T*>(&value)), add_(&add<T>), take_(&refuse<T>) {}

    const char* name() const noexcept { return name_; }
    void add(detail::Structure& out) const { add_(value_, out); }
    // Writes what patches have changed into the value. Returns what makes up for that when the call ends; empty if nothing
    // changed.
    std::unique_ptr<detail::PutBack> take(detail::Leaves& leaves) const { return take_(value_, leaves, name_); }

private:
    using Taken = std::unique_ptr<detail::PutBack>;
    template <class T>
    static void add(void* value, detail::Structure& out) {
        if constexpr (std::is_array_v<T>) detail::StructureOf<std::string>::add(static_cast<const char*>(value), out);
        else detail::StructureOf<std::remove_const_t<T>>::add(*static_cast<T*>(value), out);
    }
    template <class T>
    static Taken take(void* address, detail::Leaves& leaves, const char*) {
        T& value = *static_cast<T*>(address);
        if constexpr (detail::CanCopy<T>::value) {
            T before = value;
            if (!detail::StructureOf<T>::take(value, leaves)) return nullptr;
            return std::make_unique<detail::PutBackOf<T>>(value, std::move(before));
        } else {
            detail::StructureOf<T>::take(value, leaves);
            return nullptr;
        }
    }
    template <class T>
    static Taken refuse(void* value, detail::Leaves& leaves, const char* name) {
        bool changed = false;
        if constexpr (detail::CanCopy<T>::value) {
            T copy = *static_cast<T*>(value);
            changed = detail::StructureOf<T>::take(copy, leaves);
        } else {
            leaves.skip(1);
        }
        if (changed)
            throw Error(GP_STATUS_REFUSED, std::string("graphpatch: a patch changed the input ") + name +
                                               ", which is const where its Scope is: take it by value there");
        return nullptr;
    }

    const char* name_;
    void* value_;
    void (*add_)(void*, detail::Structure&);
    Taken (*take_)(void*, detail::Leaves&, const char*);
};

namespace detail {

// One open call.
struct Frame {
    Frame* outer = nullptr;
    const Module* module = nullptr;  // null in a Run, and in a call in which nothing matters
    Tree* tree = nullptr;            // the tree of the run's root; null in a Run
    uint64_t run = 0;
    uint32_t wants = 0;
    bool cold = false;    // nothing that happens inside is recorded or patched
    bool by_call = false;  // opened by call(); a Scope line of the same module means the same call and opens no other
    Copies copies;         // of containers, which this call was given, or got from a call in it
};

// The innermost open call of this thread.
inline thread_local Frame* current = nullptr;

// One call, open from begin() until it is destroyed: a scope, or, outside of any run, a run.
class Call {
public:
    Call() = default;
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() { end(); }

    // Whether a call may be recorded or patched at all. Where nobody does either, this test is the only cost of a call.
    // Otherwise pass() notes it where it is the outermost one.
    static bool matters() { return current ? !current->cold : gp_runs_wanted(); }

    // A call of which nothing is wanted. What it calls is no run of its own, also if another thread asks for runs meanwhile.
    void pass() {
        if (!current) enter(Open::Cold);
    }

    // A call of `module`, with the arguments' values or only their names.
    void begin(const Module& module, const Input* inputs, size_t n, bool by_call) {
        if (current) settle(current->copies);
        Names names;
        for (size_t i = 0; i < n; ++i) names.push_back(inputs[i].name());
        if (!current) {
            begin_run(Roots::get().outermost(module), names);
        } else {
            if (!by_call && current->by_call && current->module == &module) { // call() has opened this call already
                current->by_call = false;
                return;
            }
            begin_scope(module, names);
        }
        frame_.by_call = by_call;
        shown([&] { show_inputs(inputs, n); });
    }

    // The same for a Run, which belongs to no module.
    void begin(const std::string& name, const Input* inputs, size_t n) {
        Names names;
        for (size_t i = 0; i < n; ++i) names.push_back(inputs[i].name());
        const auto root = made<gp_root>(
            [&](gp_root** out) { return gp_root_new(name.c_str(), "", names.data(), names.size(), nullptr, 0, false, out); },
            gp_root_free);
        if (current || !open_run(root.get())) open_scope(new_scope(name, nullptr, names).get());
        shown([&] { show_inputs(inputs, n); });
    }

    // The value that the call returns, as patches leave it.
    template <class T>
    std::decay_t<T> output(T&& value) {
        using Value = std::decay_t<T>;
        if (open_ == Open::No || !(frame_.wants & GP_WANTS_OUTPUT)) return std::forward<T>(value);
        // Nobody else holds a temporary, so that patches may change it in place.
        constexpr bool owned = !std::is_lvalue_reference_v<T> && !std::is_const_v<T>;
        Value result = std::forward<T>(value);
        Structure structure;
        StructureOf<Value>::add(result, structure);
        uint32_t changed = 0;
        check(gp_scope_output(structure.text.c_str(), structure.tensors.data(), structure.tensors.size(), owned, &changed));
        Leaves leaves;
        if (changed) StructureOf<Value>::take(result, leaves);
        if (frame_.outer) move(leaves.copies, *frame_.outer);
        return result;
    }

    void end() noexcept {
        if (open_ == Open::No) return;
        settle(frame_.copies);
        for (const auto& input : inputs_) input->now();
        inputs_.clear();
        leave();
        if (current) settle(current->copies);
        if (open_ == Open::Scope) gp_scope_leave();
        else if (open_ == Open::Run) gp_run_end();
        else gp_run_decline(false);
        open_ = Open::No;
    }

private:
    enum class Open { No, Cold, Scope, Run };

    // Ends the call if showing a value throws: the destructor of a Scope does not run when its constructor throws.
    template <class Body>
    void shown(Body body) {
        try {
            body();
        } catch (...) {
            end();
            throw;
        }
    }

    void enter(Open open) {
        open_ = open;
        frame_.cold = !(frame_.wants & GP_WANTS_INSIDE);
        frame_.outer = current;
        current = &frame_;
        if (open == Open::Cold) gp_run_decline(true);
    }

    void leave() noexcept {
        if (current == &frame_) {
            current = frame_.outer;
            return;
        }
        for (Frame* inner = current; inner; inner = inner->outer)
            if (inner->outer == &frame_) inner->outer = frame_.outer;
        gp_session_note(
            nullptr,
            "calls on one thread ended in another order than they began, as fibers make them: they were taken for parts "
            "of each other; put a graphpatch::CallsAside around each switch to another fiber");
    }

    // Returns false if a run is open on this thread that was not begun by the C++ binding.
    bool open_run(const gp_root* root) {
        const gp_status status = gp_run_open(nullptr, root, &frame_.wants, nullptr);
        if (status == GP_STATUS_STATE) return false;
        check(status);
        enter(frame_.wants ? Open::Run : Open::Cold);
        return true;
    }

    void begin_run(std::shared_ptr<Tree> tree, const Names& names) {
        tree_ = std::move(tree);
        frame_.tree = tree_.get();
        frame_.module = tree_->module();
        frame_.run = tree_->next_run();
        auto now = tree_->by_parameter ? tree_->parameters() : decltype(tree_->parameters())();
        const auto root = tree_->root(names, tree_->by_parameter ? &now.first : nullptr);
        if (!open_run(root->handle.get())) return open_scope(new_scope(tree_->name(), tree_->module(), names).get());
        if (!Roots::get().registered(*tree_->module())) note_outside();
        const bool wanted = frame_.wants & GP_WANTS_PARAMETERS;
        if (wanted) shown([&] { show_parameters(*root, now.first.empty() ? tree_->parameters() : std::move(now)); });
        tree_->by_parameter = wanted;
    }

    // Says of a part of a root that is called by itself, or on another thread than the root, that paths of the root mean
    // nothing in this call.
    void note_outside() const {
        Roots::get().around(*tree_, [&](const std::string& root, const std::string& path) {
            const std::string text = class_name(*tree_->module()) + ": called outside of the runs of " + root +
                                     ", of which it is " + path + ": the call is a run of the root " + tree_->name() +
                                     ", and patches below " + root +
                                     " do not hold in it. What a run calls on other threads is outside of it, too";
            gp_session_note(nullptr, text.c_str());
        });
    }

    static void show_parameters(const RootEntry& root, std::pair<std::vector<std::string>, std::vector<const void*>> now) {
        if (now.first != root.parameters) { // parameters were added or removed; the next run gets a new root with their names
            std::unordered_map<std::string, const void*> by_path;
            for (size_t i = 0; i < now.first.size(); ++i) by_path[now.first[i]] = now.second[i];
            now.second.clear();
            for (const std::string& path : root.parameters) now.second.push_back(by_path[path]);
        }
        check(gp_run_parameters(now.second.data(), now.second.size()));
    }

    void begin_scope(const Module& module, const Names& names) {
        frame_.module = &module;
        frame_.run = current->run;
        if (!current->tree) { // directly in a Run
            tree_ = Roots::get().outermost(module);
            frame_.tree = tree_.get();
            return open_scope(new_scope(tree_->name(), &module, names).get());
        }
        frame_.tree = current->tree;
        std::vector<const Module*> callers;
        for (const Frame* frame = current; frame; frame = frame->outer)
            if (frame->module) callers.push_back(frame->module);
        const auto registered = Roots::get().registered(module);
        const auto note = [&](const std::string& path, bool owned) {
            // A root that runs of another one call is named as it was registered, which needs no note.
            if (registered && module.parameters().empty() && module.buffers().empty()) return;
            const std::string text =
                class_name(module) + ": called in a run of " + frame_.tree->name() +
                ", where no module that is being called has it below itself; it is named \"" + path + "\" here, and " +
                (owned ? "its parameters are known from the next run on, as are those of a module that takes its place: "
                         "register_module() it"
                       : "its parameters are not known, since no shared_ptr holds it: register_module() it");
            gp_session_note(nullptr, text.c_str());
        };
        scope_ = frame_.tree->scope(callers, module, registered ? registered->name() : "", names, frame_.run, note);
        open_scope(scope_->handle.get());
    }

    static std::shared_ptr<gp_scope> new_scope(const std::string& name, const Module* module, const Names& names) {
        const std::string class_name = module ? detail::class_name(*module) : "";
        return made<gp_scope>(
            [&](gp_scope** out) {
                return gp_scope_new(name.c_str(), name.c_str(), class_name.c_str(), names.data(), names.size(), false, out);
            },
            gp_scope_free);
    }

    void open_scope(const gp_scope* scope) {
        check(gp_scope_open(scope, &frame_.wants));
        enter(Open::Scope);
    }

    void show_inputs(const Input* inputs, size_t n) {
        if (!(frame_.wants & GP_WANTS_INPUTS)) return;
        Structure structure;
        structure.number('(', static_cast<int64_t>(n));
        for (size_t i = 0; i < n; ++i) inputs[i].add(structure);
        uint32_t changed = 0;
        check(gp_scope_inputs(structure.text.c_str(), structure.tensors.data(), structure.tensors.size(), &changed));
        Leaves leaves;
        for (size_t i = 0; changed && i < n; ++i)
            if (auto input = inputs[i].take(leaves)) inputs_.push_back(std::move(input));
        move(leaves.copies, frame_);
    }

    static void move(Copies& copies, Frame& frame) {
        std::move(copies.begin(), copies.end(), std::back_inserter(frame.copies));
    }

    Open open_ = Open::No;
    Frame frame_;
    std::shared_ptr<Tree> tree_;
    std::shared_ptr<ScopeEntry> scope_;
    std::vector<std::unique_ptr<PutBack>> inputs_;
};

} // namespace detail
} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
