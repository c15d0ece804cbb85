// TorchScript: where a run begins and ends, and the plan that carries our markers.
//
// Every Method call fires a RecordFunction callback before its executor is asked for a plan. There we put in the place
// of the plan that the executor will give in unoptimized mode one made from an instrumented copy of the module's graphs
// (instrument.cpp), and switch that mode on for the call. The module's own graphs are never touched: what the program
// saves, copies or freezes is what it was. An executor that was optimized before we came prefers that plan in every
// mode, so there that plan is replaced, and put back when the session has let go.
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

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace graphpatch {

using namespace torch::jit;

// One instrumented plan of one executor (a function under one autocast setting), and the one that it takes the place of.
// A thread may be copying the executor's plan at the very moment in which we put another one there: it finds the old one
// or the new one, or reads one word of each. Both live as long as the executor does, so whatever it finds is alive.
struct ScriptRoot {
  ExecutionPlan plan; // ours; default if it could not be instrumented
  ExecutionPlan original;
  bool optimized = false; // the original is, and has to come back when the session has let go
  bool lent = false;      // ours stands in its place
  std::shared_ptr<Scope> scope;
  GpRoot* handle = nullptr; // NULL: could not be instrumented, runs untouched
  std::vector<std::vector<size_t>> parameters; // slots to walk from the module, in the order given to root_define

  ~ScriptRoot() {
    if (handle)
      core->root_free(handle);
  }
  // Nobody but us holds a plan: the executor is gone.
  bool abandoned() const {
    return original.graph.use_count() == 1 && (!handle || plan.graph.use_count() == 1);
  }
};

// By the graphs of both plans: the executor gives one or the other in unoptimized mode.
static std::mutex roots_mutex;
static std::unordered_map<const Graph*, std::shared_ptr<ScriptRoot>>& roots() {
  static auto* map = new std::unordered_map<const Graph*, std::shared_ptr<ScriptRoot>>;
  return *map;
}

// How many optimized plans are to come back.
static std::atomic<int> borrowed{0};

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

// The plan that the executor gives in unoptimized mode. It is an object of the executor's that is handed out read-only.
static ExecutionPlan& plan_of(GraphFunction& function) {
  Unoptimized mode;
  Stack none;
  return const_cast<ExecutionPlan&>(function.get_executor().getPlanFor(none));
}

static std::string qualified(const c10::ClassTypePtr& type) {
  return type->name() ? type->name()->qualifiedName() : std::string("?");
}

static std::shared_ptr<ScriptRoot> make_root(GraphFunction& function, const c10::ClassTypePtr& type) {
  auto root = std::make_shared<ScriptRoot>();
  root->original = plan_of(function);
  const std::string name = qualified(type) + "." + function.name();
  try {
    std::string lost;
    auto graph = instrument(function, type, root->scope, lost);
    // As libtorch's own preparation does. These fold what is no operation (flags, None checks, loop bounds), and what
    // the tracer added; no pass that drops, merges or replaces operations runs.
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
    if (!lost.empty()) {
      const std::string text = name + ": " + lost;
      core->note(gp_str(text));
    }
  } catch (const std::exception& error) {
    const std::string why = name + ": runs untouched, its graph could not be instrumented: " + error.what();
    core->note(gp_str(why));
  }
  root->optimized = root->handle && function.get_executor().isOptimized();
  return root;
}

// Lets the executor give our plan. With the lock held.
static void lend(ExecutionPlan& place, ScriptRoot& root) {
  if (!root.handle || place.graph == root.plan.graph)
    return;
  place = root.plan;
  root.lent = root.optimized;
  borrowed += root.lent;
}

// The root of this call if it was seen before. With the lock held.
static std::shared_ptr<ScriptRoot> known_root(const ExecutionPlan& place) {
  auto found = roots().find(place.graph.get());
  return found == roots().end() ? nullptr : found->second;
}

// The root of this call, instrumented; NULL when it cannot be. The work is done once per executor.
static std::shared_ptr<ScriptRoot> root_of(GraphFunction& function, const c10::ClassTypePtr& type) {
  const Lock lock(roots_mutex);
  ExecutionPlan& place = plan_of(function);
  auto root = known_root(place);
  if (!root) {
    for (auto it = roots().begin(); it != roots().end();)
      it = it->second->abandoned() ? roots().erase(it) : std::next(it);
    root = make_root(function, type);
    roots()[root->original.graph.get()] = root;
    if (root->handle)
      roots()[root->plan.graph.get()] = root;
  }
  lend(place, *root);
  return root->handle ? root : nullptr;
}

// The session has let go: gives the executor its optimized plan back.
static void give_back(GraphFunction& function) {
  const Lock lock(roots_mutex);
  ExecutionPlan& place = plan_of(function);
  auto root = known_root(place);
  if (root && root->lent) {
    place = root->original;
    root->lent = false;
    --borrowed;
  }
}

static void give_script_parameters(const ScriptRoot& root, const c10::IValue& module) {
  std::vector<const void*> identities;
  identities.reserve(root.parameters.size());
  for (const auto& slots : root.parameters) {
    const c10::IValue* value = &module;
    for (size_t slot : slots)
      value = &value->toObjectRef().slots()[slot];
    identities.push_back(
        value->isTensor() && value->toTensor().defined() ? value->toTensor().unsafeGetTensorImpl() : nullptr);
  }
  keep_addresses(identities.data(), identities.size());
  core->run_parameters(identities.data(), identities.size());
}

// One Method call from its start callback to its end callback.
struct RunContext : public at::ObserverContext {
  Unoptimized mode;
  std::shared_ptr<ScriptRoot> root; // keeps what the run refers to
  bool ours = false;
  bool declined = false;
};

// The function that is called, and the class of the module that it is called on; null where it is no call of a root.
struct RootCall {
  GraphFunction* function = nullptr;
  c10::ClassTypePtr type;
};

static RootCall called_root(const at::RecordFunction& call) {
  const GpThread& thread = this_thread();
  const auto inputs = call.inputs();
  if (thread.run || thread.declined || inputs.empty() || !inputs[0].isObject())
    return {};
  const c10::ClassTypePtr type = inputs[0].toObjectRef().type();
  const std::string name = call.name();
  // Loading calls __setstate__ and the like; those are no runs.
  if (!type->is_module() || name.compare(0, 2, "__") == 0)
    return {};
  Function* method = type->findMethod(name);
  if (!method || !method->isGraphFunction())
    return {};
  return {&toGraphFunction(*method), type};
}

// A call by the interpreter, not by Method: its plan is chosen already. Whether that is ours; if not, the next call on
// this thread will find ours.
static bool finds_our_plan(GraphFunction& function, const c10::ClassTypePtr& type) {
  {
    const Lock lock(roots_mutex);
    const ExecutionPlan& place = plan_of(function);
    const auto root = known_root(place);
    if (root && root->handle && place.graph == root->plan.graph && (root->lent || !getGraphExecutorOptimize()))
      return true;
  }
  if (root_of(function, type)) {
    setGraphExecutorOptimize(false);
    const std::string why =
        qualified(type) + "." + function.name() + ": its first call on a thread came from Python and is not seen";
    core->note(gp_str(why));
  }
  return false;
}

static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call) {
  const uint32_t active = *core->active;
  if (active == GP_DETACHED && !borrowed)
    return nullptr;
  const RootCall called = called_root(call);
  if (!called.function)
    return nullptr;
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  if (active == GP_DETACHED) {
    give_back(*called.function);
    return nullptr;
  }
  if (active == GP_IDLE) {
    // What was instrumented stays so until the session lets go: an optimized plan that the executor made meanwhile
    // would have to be replaced again at the next patch.
    const Lock lock(roots_mutex);
    auto root = known_root(plan_of(*called.function));
    return root && root->handle ? std::make_unique<RunContext>() : nullptr;
  }
  if (!currentCallstack().empty() && !finds_our_plan(*called.function, called.type))
    return nullptr;
  auto root = root_of(*called.function, called.type);
  if (!root)
    return nullptr;
  auto context = std::make_unique<RunContext>();
  context->root = root;
  const uint32_t wants = core->call_begin(root->handle);
  context->ours = wants != 0;
  context->declined = wants == 0; // what it calls inside is no call of a root
  if (wants & GP_WANTS_PARAMETERS)
    give_script_parameters(*root, call.inputs()[0]);
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
  if (run && run->declined)
    core->call_end();
  if (run && run->ours)
    core->run_end();
}

bool prepare_script(const c10::IValue& module) {
  if (!module.isObject())
    return false;
  const c10::ClassTypePtr type = module.toObjectRef().type();
  Function* method = type->is_module() ? type->findMethod("forward") : nullptr;
  if (!method || !method->isGraphFunction())
    return false;
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  return root_of(toGraphFunction(*method), type) != nullptr;
}

void start_script() {
  register_markers();
  at::addGlobalCallback(at::RecordFunctionCallback(on_start, on_end)
                            .scopes({at::RecordScope::TORCHSCRIPT_FUNCTION})
                            .needsInputs(true));
}

} // namespace graphpatch
