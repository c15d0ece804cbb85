// TorchScript: where a run begins and ends, and the plan that carries our markers.
//
// Every Method call fires a RecordFunction callback before its executor is asked for a plan. There we replace the plan
// that the executor keeps for the unoptimized mode by one made from an instrumented copy of the module's graphs
// (instrument.cpp), and switch that mode on for the call. The module's own graphs and the executor's optimized plans
// are never touched: what the program saves, copies, freezes or runs without us is what it was.
//
// Python calls a module's function past Method, so that the callback fires from the interpreter when the plan is
// chosen already. There the first call of a module is not seen; the thread stays unoptimized, and from its next call on
// it is.
#include "adapter.h"
#include "instrument.h"

#include <ATen/record_function.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/autocast.h>
#include <torch/csrc/jit/passes/constant_pooling.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/remove_expands.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <memory>
#include <mutex>
#include <unordered_map>

namespace graphpatch {

using namespace torch::jit;

// One instrumented plan of one executor (a function under one autocast setting).
struct ScriptRoot {
  std::weak_ptr<Graph> plan; // of the executor; gone with it
  std::shared_ptr<Scope> scope;
  GpRoot* handle = nullptr; // NULL: could not be instrumented, runs untouched
  std::vector<std::vector<size_t>> parameters; // slots to walk from the module, in the order given to root_define

  ~ScriptRoot() {
    if (handle)
      core->root_free(handle);
  }
};

// By the graph of the plan that the executor gives in unoptimized mode.
static std::mutex roots_mutex;
static std::unordered_map<const Graph*, std::shared_ptr<ScriptRoot>>& roots() {
  static auto* map = new std::unordered_map<const Graph*, std::shared_ptr<ScriptRoot>>;
  return *map;
}

// Tensor attributes of the module and of everything below it: their paths, and the slots that lead to them.
static void list_parameters(
    const c10::ClassTypePtr& type,
    const std::string& prefix,
    std::vector<size_t>& slots,
    std::vector<std::string>& paths,
    std::vector<std::vector<size_t>>& out) {
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

// Sets the thread's optimizer switch, and puts it back.
class Unoptimized {
 public:
  Unoptimized() : before_(getGraphExecutorOptimize()) {
    setGraphExecutorOptimize(false);
  }
  ~Unoptimized() {
    setGraphExecutorOptimize(before_);
  }

 private:
  bool before_;
};

// The executor's plan for the unoptimized mode. It is an object of the executor's that it hands out read-only; we
// may write it because nobody else runs unoptimized while we make it (all who do come through `root_of` first).
static ExecutionPlan& unoptimized_plan(GraphExecutor& executor) {
  Unoptimized mode;
  Stack none;
  return const_cast<ExecutionPlan&>(executor.getPlanFor(none));
}

static std::string qualified(const c10::ClassTypePtr& type) {
  return type->name() ? type->name()->qualifiedName() : std::string("?");
}

static std::shared_ptr<ScriptRoot> make_root(GraphFunction& function, const c10::ClassTypePtr& type) {
  auto root = std::make_shared<ScriptRoot>();
  std::string lost;
  auto graph = instrument(function, type, root->scope, lost);
  // As libtorch's own preparation does. These fold what is no operation (flags, None checks, loop bounds), and what the
  // tracer added; no pass that drops, merges or replaces operations runs.
  ConstantPropagationImmutableTypes(graph);
  Autocast(graph);
  RemoveExpands(graph);
  ConstantPooling(graph);

  ExecutionPlan& plan = unoptimized_plan(function.get_executor());
  plan = ExecutionPlan(graph, function.name());
  root->plan = plan.graph;

  std::vector<std::string> paths;
  std::vector<size_t> slots;
  list_parameters(type, "", slots, paths, root->parameters);
  std::vector<GpStr> texts;
  for (const std::string& path : paths)
    texts.push_back(gp_str(path));
  const std::string name = qualified(type) + "." + function.name();
  GpRootInfo info{root->scope->handle(), gp_str(name), texts.data(), texts.size()};
  root->handle = core->root_define(&info);
  if (!lost.empty()) {
    const std::string text = name + ": " + lost;
    core->note(gp_str(text));
  }
  return root;
}

// The instrumented root of this call, if there is one.
static std::shared_ptr<ScriptRoot> find_root(GraphFunction& function) {
  std::lock_guard<std::mutex> lock(roots_mutex);
  auto plan = unoptimized_plan(function.get_executor()).graph;
  auto found = roots().find(plan.get());
  return found != roots().end() && found->second->plan.lock() == plan ? found->second : nullptr;
}

// The same, made if need be; NULL when it cannot be instrumented. The work is done once per executor.
static std::shared_ptr<ScriptRoot> root_of(GraphFunction& function, const c10::ClassTypePtr& type, bool chosen) {
  GraphExecutor& executor = function.get_executor();
  // A plan that was optimized before we came is preferred to any other, so it has to go. Executors do not expect that
  // while a caller is on its way from the plan to running it, so do it only where this call has not chosen its plan.
  if (executor.isOptimized()) {
    if (chosen)
      return nullptr;
    executor.debugFlushCompilationCache();
  }
  if (auto root = find_root(function))
    return root->handle ? root : nullptr;

  std::lock_guard<std::mutex> lock(roots_mutex);
  auto plan = unoptimized_plan(executor).graph;
  auto found = roots().find(plan.get());
  if (found != roots().end() && found->second->plan.lock() == plan) // another thread was faster
    return found->second->handle ? found->second : nullptr;
  for (auto it = roots().begin(); it != roots().end();)
    it = it->second->plan.expired() ? roots().erase(it) : std::next(it);
  std::shared_ptr<ScriptRoot> root;
  try {
    root = make_root(function, type);
  } catch (const std::exception& error) {
    root = std::make_shared<ScriptRoot>();
    root->plan = plan;
    const std::string why = qualified(type) + "." + function.name() +
        ": runs untouched, its graph could not be instrumented: " + error.what();
    core->note(gp_str(why));
  }
  if (auto key = root->plan.lock())
    roots()[key.get()] = root;
  return root->handle ? root : nullptr;
}

static void give_parameters(const ScriptRoot& root, const c10::IValue& module, GpRun* run) {
  std::vector<const void*> identities;
  identities.reserve(root.parameters.size());
  for (const auto& slots : root.parameters) {
    const c10::IValue* value = &module;
    for (size_t slot : slots)
      value = &value->toObjectRef().slots()[slot];
    identities.push_back(
        value->isTensor() && value->toTensor().defined() ? value->toTensor().unsafeGetTensorImpl() : nullptr);
  }
  core->run_parameters(run, identities.data(), identities.size());
}

// One Method call from its start callback to its end callback.
struct RunContext : public at::ObserverContext {
  Unoptimized mode;
  std::shared_ptr<ScriptRoot> root; // keeps what the run refers to
  bool ours = false;
  int exceptions = std::uncaught_exceptions();
};

static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call) {
  const uint32_t active = *core->active;
  if (active == GP_DETACHED)
    return nullptr;
  Thread& thread = this_thread();
  const auto inputs = call.inputs();
  if (thread.run || inputs.empty() || !inputs[0].isObject())
    return nullptr;
  const c10::ClassTypePtr type = inputs[0].toObjectRef().type();
  const std::string name = call.name();
  // Loading calls __setstate__ and the like; those are no runs.
  if (!type->is_module() || name.compare(0, 2, "__") == 0)
    return nullptr;
  Function* method = type->findMethod(name);
  if (!method || !method->isGraphFunction())
    return nullptr;
  GraphFunction& function = toGraphFunction(*method);
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);

  if (active == GP_IDLE) {
    // What was instrumented keeps its plan until the session lets go: an optimized one made meanwhile would have to be
    // thrown away again, and made again, at each change of patches.
    return find_root(function) ? std::make_unique<RunContext>() : nullptr;
  }
  const bool chosen = !currentCallstack().empty(); // called by the interpreter, not by Method
  const bool unoptimized = !getGraphExecutorOptimize();
  const bool known = chosen && unoptimized && find_root(function);
  auto root = root_of(function, type, chosen);
  if (!root)
    return nullptr;
  if (chosen && !known) {
    setGraphExecutorOptimize(false); // stays so: the next call on this thread finds our plan
    const std::string why = qualified(type) + "." + name + ": its first call on a thread came from Python and is not seen";
    core->note(gp_str(why));
    return nullptr;
  }
  auto context = std::make_unique<RunContext>();
  context->root = root;
  uint32_t flags = 0;
  if (GpRun* run = core->run_begin(root->handle, &flags)) {
    thread.run = run;
    thread.root_flags = flags;
    context->ours = true;
    if (flags & GP_FRAME_PARAMETERS)
      give_parameters(*root, inputs[0], run);
  }
  return context;
}

static std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& call) {
  try {
    return begin(call);
  } catch (const std::exception& error) {
    const std::string why = std::string("a call runs untouched: ") + error.what();
    core->note(gp_str(why));
    return nullptr;
  }
}

static void on_end(const at::RecordFunction&, at::ObserverContext* context) {
  auto* run = static_cast<RunContext*>(context);
  if (run && run->ours)
    end_run(std::uncaught_exceptions() == run->exceptions);
}

void start_script() {
  register_markers();
  at::addGlobalCallback(at::RecordFunctionCallback(on_start, on_end)
                            .scopes({at::RecordScope::TORCHSCRIPT_FUNCTION})
                            .needsInputs(true));
}

} // namespace graphpatch
