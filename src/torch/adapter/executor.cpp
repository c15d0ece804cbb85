// The executor that replaces libtorch's own one, once and for good, when a function is first called while a session wants
// something. For each call it decides which plan runs: ours, made from an instrumented copy of the module's graphs
// (instrument.cpp), or the plan of libtorch's executor, which is asked as if we were not there. So the program has its own
// plans whenever nothing is wanted, and neither its graphs nor its plans are ever changed.
//
// Another thread may be calling the function while its executor is replaced. It reads one pointer, either to the old executor
// or to the new one. It does not copy the pointer's owner, and both executors live as long as the function.
#include "executor.h"

#include <torch/csrc/jit/passes/autocast.h>
#include <torch/csrc/jit/passes/constant_pooling.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/remove_expands.h>
#include <torch/csrc/jit/runtime/graph_executor_impl.h>
#include <torch/version.h>

#include <atomic>
#include <mutex>

namespace graphpatch {

using namespace torch::jit;

namespace {

class Executor : public GraphExecutorImplBase {
public:
  Executor(const GraphFunction& function, std::shared_ptr<GraphExecutorImplBase> own, std::shared_ptr<const ScriptRoot> root)
      : GraphExecutorImplBase(function.graph(), function.name()), own_(std::move(own)), root_(std::move(root)) {
  }

  const ExecutionPlan& getPlanFor(Stack& stack, std::optional<size_t> remaining_bailout_depth) override {
    return root_->handle && may_matter(this_thread()) ? root_->plan : own_->getPlanFor(stack, remaining_bailout_depth);
  }
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 15
  const ExecutionPlan& getInputIndependentPlan() override {
    return own_->getInputIndependentPlan();
  }
#endif
  GraphExecutorState getDebugState() override {
    return own_->getDebugState();
  }
  bool isOptimized() const override {
    return own_->isOptimized();
  }
  const std::shared_ptr<const ScriptRoot>& root() const {
    return root_;
  }

private:
  const std::shared_ptr<GraphExecutorImplBase> own_;
  const std::shared_ptr<const ScriptRoot> root_;
};

// An explicit instantiation of a template may name a private member. This one gives access to that member.
struct ExecutorOf {
  using Member = std::shared_ptr<GraphExecutorImplBase> GraphExecutor::*;
  friend Member member_of(ExecutorOf);
};
template <ExecutorOf::Member member>
struct Reveal {
  friend ExecutorOf::Member member_of(ExecutorOf) {
    return member;
  }
};
template struct Reveal<&GraphExecutor::pImpl>;

// Lists the tensor attributes of the module and of all modules below it: their paths, and the slots that lead to them.
void list_parameters(const c10::ClassTypePtr& type, const std::string& prefix, std::vector<size_t>& slots,
                     std::vector<std::string>& paths, std::vector<std::vector<size_t>>& out) {
  for (size_t i = 0; i < type->numAttributes(); ++i) {
    const auto& attribute = type->getAttribute(i);
    const std::string path = prefix + type->getAttributeName(i);
    slots.push_back(i);
    auto below = attribute->cast<c10::ClassType>();
    if (below && below->is_module()) {
      list_parameters(below, path + ".", slots, paths, out);
    } else if (attribute->isSubtypeOf(*c10::OptionalType::create(c10::TensorType::get()))) {
      paths.push_back(path);
      out.push_back(slots);
    }
    slots.pop_back();
  }
}

std::shared_ptr<const ScriptRoot> make_root(GraphFunction& function, const c10::ClassTypePtr& type) {
  auto root = std::make_shared<ScriptRoot>();
  const std::string name = qualified(type) + "." + function.name();
  const ForksWait forks_wait; // libtorch looks up operators and types
  try {
    std::string lost;
    auto graph = instrument(function, type, root->scope, root->scopes, lost, root->waits);
    // The same passes as in libtorch's own preparation. They fold things that are not operations (flags, None checks, loop
    // bounds), and additions of the tracer. No pass is run that drops, merges or replaces operations.
    ConstantPropagationImmutableTypes(graph);
    Autocast(graph);
    RemoveExpands(graph);
    ConstantPooling(graph);
    root->plan = ExecutionPlan(graph, function.name());

    std::vector<std::string> paths;
    std::vector<size_t> slots;
    list_parameters(type, "", slots, paths, root->parameters);
    std::vector<GpStr> texts;
    for (const std::string& path : paths)
      texts.push_back(gp_str(path));
    GpRootInfo info{root->scope->handle(), gp_str(name), texts.data(), texts.size()};
    root->handle = core->root_define(&info);
    if (!lost.empty())
      root->note = name + ": " + lost;
  } catch (const std::exception& error) {
    root->note = name + ": runs untouched, its graph could not be instrumented: " + error.what();
  }
  return root;
}

const Executor* installed(const std::shared_ptr<GraphExecutorImplBase>& place) {
  return dynamic_cast<const Executor*>(place.get());
}

// The root is made before this call, without the lock. If two threads make one, the first to come here wins.
bool install(GraphFunction& function, std::shared_ptr<GraphExecutorImplBase>& place, std::shared_ptr<const ScriptRoot> root) {
  static std::mutex mutex;
  const Lock lock(mutex);
  if (installed(place))
    return false;
  std::shared_ptr<GraphExecutorImplBase> ours = std::make_shared<Executor>(function, place, std::move(root));
  // A thread that reads the new pointer must find a complete object.
  std::atomic_thread_fence(std::memory_order_release);
  place.swap(ours);
  return true;
}

} // namespace

std::string qualified(const c10::ClassTypePtr& type) {
  return type->name() ? type->name()->qualifiedName() : std::string("?");
}

bool has_our_plan(GraphFunction& function) {
  const Executor* ours = installed(function.get_executor().*member_of(ExecutorOf{}));
  return ours && ours->root()->handle;
}

std::shared_ptr<const ScriptRoot> root_of(GraphFunction& function, const c10::ClassTypePtr& type, bool& is_new) {
  std::shared_ptr<GraphExecutorImplBase>& place = function.get_executor().*member_of(ExecutorOf{});
  is_new = false;
  if (!installed(place))
    is_new = install(function, place, make_root(function, type));
  const auto& root = installed(place)->root();
  if (!root->note.empty()) // this call's session may be another one than that of the first call
    core->note(gp_str(root->note));
  return root->handle ? root : nullptr;
}

} // namespace graphpatch
