// TorchScript: where a run begins and ends.
//
// Every Method call fires a RecordFunction callback before its executor is asked for a plan. The run begins in that callback,
// and the executor (executor.cpp) gives our plan. Python calls a module's function without Method, so that the callback fires
// from the interpreter, after the plan was chosen. Then the run begins with the first marker of our plan. If another plan was
// chosen, because the function's executor has not been replaced yet, there is no run.
#include "adapter.h"
#include "executor.h"
#include "source.h"

#include <ATen/record_function.h>

#include <atomic>
#include <memory>
#include <optional>

namespace graphpatch {

using namespace torch::jit;

// Switches the thread's optimizer off, and restores it. Code that our plan calls without instrumenting it (through an
// interface) shows its operations only if libtorch runs it without optimizations.
class Unoptimized {
public:
  Unoptimized() : before_(getGraphExecutorOptimize()) {
    setGraphExecutorOptimize(false);
  }
  ~Unoptimized() {
    setGraphExecutorOptimize(before_);
  }
  Unoptimized(const Unoptimized&) = delete;
  Unoptimized& operator=(const Unoptimized&) = delete;

private:
  bool before_;
};

static void give_script_parameters(const ScriptRoot& root, const c10::IValue& module) {
  std::vector<const void*> identities;
  identities.reserve(root.parameters.size());
  for (const auto& slots : root.parameters) {
    const c10::IValue* value = &module;
    for (size_t slot : slots)
      value = &value->toObjectRef().slots()[slot];
    identities.push_back(value->isTensor() && value->toTensor().defined() ? value->toTensor().unsafeGetTensorImpl() : nullptr);
  }
  keep_addresses(identities.data(), identities.size());
  core->run_parameters(identities.data(), identities.size());
}

// One call of a root.
struct Call {
  const std::shared_ptr<const ScriptRoot> root; // keeps what the run refers to
  bool ours = false;     // a run has begun
  bool declined = false; // nothing is wanted of it, and what it calls inside is no call of a root
  bool over = false;
  std::optional<Unoptimized> mode;

  explicit Call(std::shared_ptr<const ScriptRoot> root) : root(std::move(root)) {
  }

  void begin(const c10::IValue& module) {
    const uint32_t wants = core->call_begin(root->handle);
    ours = wants != 0;
    declined = wants == 0;
    if (ours)
      mode.emplace();
    // The run has begun, so an exception here would leave it open.
    if (wants & GP_WANTS_PARAMETERS)
      has_memory_for([&] { give_script_parameters(*root, module); });
  }

  void end() {
    over = true;
    mode.reset();
    if (declined)
      core->call_end();
    if (ours)
      core->run_end();
  }
};

// The state of a call between its start callback and its end callback.
struct CallContext : public at::ObserverContext {
  std::shared_ptr<Call> call;
  std::shared_ptr<Call> outer; // the call that was waiting before this one
  bool waits = false;          // whether it waits for the first marker
  bool first = false;          // whether the function's executor was replaced for this call
  std::shared_ptr<const char> without_places; // alone: a call inside a run that has the program's own plan
};

// The call of this thread that begins with the first marker of its plan, if the plan is ours.
static std::shared_ptr<Call>& waiting_call() {
  static thread_local std::shared_ptr<Call> call;
  return call;
}

// The function that is called, and the class of the module that it is called on. Both are null if this is no method of a
// module.
struct MethodCall {
  GraphFunction* function = nullptr;
  c10::ClassTypePtr type;
};

static MethodCall called_method(const at::RecordFunction& call) {
  const auto inputs = call.inputs();
  if (inputs.empty() || !inputs[0].isObject())
    return {};
  const c10::ClassTypePtr type = inputs[0].toObjectRef().type();
  const std::string name = call.name();
  // Loading calls __setstate__ and the like, which are no runs.
  if (!type->is_module() || name.compare(0, 2, "__") == 0)
    return {};
  Function* method = type->findMethod(name);
  if (!method || !method->isGraphFunction())
    return {};
  return {&toGraphFunction(*method), type};
}

// libtorch keeps the record of a Method call on the stack, and that of a call by the interpreter in the interpreter's frame.
static bool is_on_stack(const void* object) {
  constexpr uintptr_t kNear = 1 << 16;
  return reinterpret_cast<uintptr_t>(object) - reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) < kNear;
}

static std::unique_ptr<at::ObserverContext> begin_inside(const MethodCall& called) {
  if (has_our_plan(*called.function) || !may_have_lost_places(*called.function->graph()))
    return nullptr;
  auto context = std::make_unique<CallContext>();
  context->without_places = without_places();
  return context;
}

static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& record) {
  const GpThread& thread = this_thread();
  if (!thread.run && (*core->active != GP_WANTED || thread.declined))
    return nullptr;
  const MethodCall called = called_method(record);
  if (!called.function)
    return nullptr;
  if (thread.run)
    return begin_inside(called);
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  auto context = std::make_unique<CallContext>();
  const auto root = root_of(*called.function, called.type, context->first);
  if (!root)
    return nullptr;
  context->call = std::make_shared<Call>(root);
  context->waits = !is_on_stack(&record);
  if (context->waits && root->waits) {
    // The callback at the end comes on the thread that has ended the last task. So nobody would end the run on this thread.
    const std::string why = std::string(record.name()) + ": a call from Python that waits for parallel tasks is not seen";
    core->note(gp_str(why));
    return nullptr;
  }
  if (context->waits)
    context->outer = std::exchange(waiting_call(), context->call);
  else
    context->call->begin(record.inputs()[0]);
  return context;
}

void begin_waiting(const GpScope* scope, const c10::IValue& module) {
  auto& call = waiting_call();
  const GpThread& thread = this_thread();
  if (!call || call->over || call->ours || call->declined || thread.run || thread.declined)
    return;
  if (call->root->scope->handle() == scope)
    call->begin(module);
}

static std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& call) {
  try {
    return begin(call);
  } catch (const std::bad_alloc&) { // a text with the reason would need memory, too
    core->note(gp_str("a call runs untouched: there was no memory to begin a run with"));
    return nullptr;
  } catch (const std::exception& error) {
    has_memory_for([&] {
      const std::string why = std::string("a call runs untouched: ") + error.what();
      core->note(gp_str(why));
    });
    return nullptr;
  }
}

static void on_end(const at::RecordFunction& record, at::ObserverContext* observed) {
  auto* context = static_cast<CallContext*>(observed);
  if (!context || !context->call)
    return;
  Call& call = *context->call;
  if (context->waits && waiting_call() == context->call)
    waiting_call() = std::move(context->outer);
  if (context->first && !call.ours && !call.declined) {
    has_memory_for([&] {
      const std::string why = std::string(record.name()) + ": its first call came from Python and is not seen";
      core->note(gp_str(why));
    });
  }
  call.end();
}

bool prepare_script(const c10::IValue& module) {
  if (!module.isObject())
    return false;
  const c10::ClassTypePtr type = module.toObjectRef().type();
  Function* method = type->is_module() ? type->findMethod("forward") : nullptr;
  if (!method || !method->isGraphFunction())
    return false;
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  bool is_new = false;
  return root_of(toGraphFunction(*method), type, is_new) != nullptr;
}

// 0 before the start, and at the end of the process, when libtorch's list of callbacks may be gone.
static std::atomic<at::CallbackHandle> callback{0};

static std::atomic<bool> hears_calls{true};

bool is_told_of_calls() {
  return callback && hears_calls;
}

struct ForgetsCallback {
  ~ForgetsCallback() {
    callback = 0;
  }
};

void start_script() {
  register_markers();
  callback = at::addGlobalCallback(
      at::RecordFunctionCallback(on_start, on_end).scopes({at::RecordScope::TORCHSCRIPT_FUNCTION}).needsInputs(true));
  static const ForgetsCallback at_exit; // made after that list, and so destroyed before it
}

// A call that has begun keeps its callbacks until it ends. The core calls this from one thread at a time.
void listen(uint32_t on) {
  if (const at::CallbackHandle handle = callback) {
    hears_calls = on != 0;
    without_exceptions([&] { on ? at::reenableCallback(handle) : at::disableCallback(handle); });
  }
}

} // namespace graphpatch
