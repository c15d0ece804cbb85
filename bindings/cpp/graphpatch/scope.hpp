// torch::nn modules: one line in a module's forward makes its calls scopes, and those of the outermost module runs.
//
//   struct MlpImpl : torch::nn::Module {
//       torch::Tensor forward(torch::Tensor x) {
//           graphpatch::Scope scope(this, {{"x", x}});
//           return scope.output(down(torch::gelu(up(x))));
//       }
//   };
//
//   graphpatch::Root root(model, "Gpt");   // names the graph; the names below it are those of register_module
#pragma once

#include "frame.hpp"

#include <torch/nn/pimpl.h>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// Names a module whose calls are runs, as long as this lives. The module is not kept alive; one that belongs to no
// shared_ptr must live as long as this. Without a Root, a module that is called outside of any run is one by the name of
// its class. All calls may be made from any thread.
class Root {
public:
    template <class M>
    Root(const std::shared_ptr<M>& module, const std::string& name) : Root(*pointee(module.get()), name) {}
    template <class M>
    Root(const torch::nn::ModuleHolder<M>& module, const std::string& name) : Root(module.ptr(), name) {}
    Root(const torch::nn::Module& module, const std::string& name) : tree_(detail::Roots::get().add(module, name)) {}

    Root(Root&&) noexcept = default;
    Root& operator=(Root&& other) noexcept {
        if (this != &other) {
            drop();
            tree_ = std::move(other.tree_);
        }
        return *this;
    }
    ~Root() { drop(); }

private:
    static const torch::nn::Module* pointee(const torch::nn::Module* module) {
        if (!module) throw Error(GP_STATUS_ARGUMENT, "the root's module is empty");
        return module;
    }
    void drop() noexcept {
        if (tree_) detail::Roots::get().remove(tree_);
        tree_.reset();
    }

    std::shared_ptr<detail::Tree> tree_;
};

// One call of a module, from the line where this stands until the block ends, also by an exception. Where nobody records or
// patches, it costs one test. It must be used on one thread: the one that runs the model.
class Scope {
public:
    // `module` is `this`. `inputs` gives the arguments, each with the name of its node. Patches change them in place, so that
    // this line stands before the code reads them. GP_STATUS_REFUSED for a patch that cannot be applied.
    Scope(const torch::nn::Module* module, std::initializer_list<Input> inputs) {
        if (detail::Call::matters()) call_.begin(*module, inputs.begin(), inputs.size(), false);
        else call_.pass();
    }

    // The module's result as patches leave it: `return scope.output(y);`
    template <class T>
    std::decay_t<T> output(T&& value) {
        return call_.output(std::forward<T>(value));
    }

private:
    detail::Call call_;
};

} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
