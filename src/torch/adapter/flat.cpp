// Flat runs: operations of a thread outside of all runs that a host reports. The thread stays armed. Its run begins at its
// first operation (or anew at each operation that the user has named, or at each call of a model) and ends with the thread. An
// operation that reads parameters of one registered module belongs to that module's scope, which is entered for this operation
// alone.
#include "flat.h"
#include "operation.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace graphpatch {

// The modules that this thread's flat run knows.
struct Known {
  std::shared_ptr<const Registry> registry;
  uint64_t generation = 0;
  // Whether the thread has called operations inside of a parallel region, and whether that was told.
  bool called_in_region = false;
  bool region_told = false;
};

static Known& known() {
  static thread_local Known known;
  return known;
}

// An operation at which a new run begins.
struct Start {
  std::string module; // empty: anywhere
  std::string op;
};

// Whether threads have flat runs. Set once, before any thread is armed.
static bool started = false;

// Filled once, before any thread is armed.
static std::vector<Start>& starts() {
  static auto* all = new std::vector<Start>;
  return *all;
}

static std::string base_name(const c10::FunctionSchema& schema) {
  const auto colon = schema.name().rfind(':');
  return colon == std::string::npos ? schema.name() : schema.name().substr(colon + 1);
}

bool may_start_run(const c10::FunctionSchema& schema) {
  for (const Start& start : starts())
    if (start.op == base_name(schema))
      return true;
  return false;
}

static bool starts_run(const c10::FunctionSchema& schema, const OpInfo& info, const Owner* owner) {
  if (!info.starts)
    return false;
  const std::string op = base_name(schema);
  for (const Start& start : starts())
    if (start.op == op && (start.module.empty() || (owner && owner->name == start.module)))
      return true;
  return false;
}

// The module whose parameters the value's tensors are. Returns false if they belong to several modules, or to none in
// particular.
static bool find_owner(const Registry& registry, const c10::IValue& value, const Owner*& owner) {
  if (value.isTensor()) {
    const auto found = registry.tensors.find(value.toTensor().unsafeGetTensorImpl());
    if (found == registry.tensors.end())
      return true;
    const Owner* own = found->second.owner.get();
    const bool same = own && (!owner || owner == own);
    owner = own;
    return same;
  }
  if (value.isTensorList() || value.isOptionalTensorList())
    for (const c10::IValue& element : value.toListRef())
      if (!find_owner(registry, element, owner))
        return false;
  return true;
}

static const Owner* owner_of(const Registry& registry, const OpInfo& info, const c10::IValue* values) {
  if (registry.tensors.empty())
    return nullptr;
  const Owner* owner = nullptr;
  for (size_t i = 0; i < info.n_arguments; ++i) {
    if (!has_bit(info.written, i) && !find_owner(registry, values[i], owner))
      return nullptr;
  }
  return owner;
}

static void begin() {
  const Registry& registry = *known().registry;
  core->flat_begin(registry.root, registry.identities.data(), registry.identities.size());
}

// The registry keeps the addresses of the modules' parameters in use.
std::shared_ptr<const Registry> learned() {
  Known& now = known();
  const uint64_t generation = registry_generation;
  if (now.registry && now.generation == generation)
    return now.registry;
  now.generation = generation;
  now.registry = present_registry();
  const Model* model = model_of_run(*now.registry);
  const auto& identities = model ? model->identities : now.registry->identities;
  core->flat_root(model ? model->root : now.registry->root, identities.data(), identities.size());
  return now.registry;
}

// Shows the run which tensors the operation reads that are no parameters of a known module.
static void show_readers(const Registry& registry, const OpInfo& info, const c10::IValue* values) {
  Readers& readers = held().readers;
  for (size_t i = 0; i < info.n_arguments; ++i)
    if (!has_bit(info.written, i))
      for_each_tensor(values[i], [&](const at::Tensor& tensor) {
        if (!registry.tensors.count(tensor.unsafeGetTensorImpl()))
          readers.read(Readers::kInnermost, tensor);
      });
}

// The scope of the module whose parameters an operation reads, for this operation alone.
class OwnersScope {
public:
  explicit OwnersScope(const Owner* owner) : entered_(owner) {
    if (owner)
      core->scope_enter(owner->scope);
  }
  ~OwnersScope() {
    if (entered_)
      core->scope_leave();
  }

private:
  bool entered_;
};

// Constructed after every other thread-local object that an operation needs, so destroyed before them: operations in the
// thread's other destructors are not intercepted.
struct Ender {
  bool touched = false;
  ~Ender() {
    core->flat_thread(0);
    forget_calls();
  }
};

void end_with_thread() {
  known();
  static thread_local Ender ender;
  ender.touched = true;
}

static thread_local uint32_t own_calls = 0;

bool is_own_work() {
  return own_calls;
}

// Says that the program calls operations inside of a parallel region (`at::parallel_for`). They cannot be told from what
// libtorch itself calls in its helper threads, so they are not seen. A helper thread has no run: all that it does is inside of
// regions.
static void tell_of_region() {
  Known& now = known();
  if (!now.called_in_region || now.region_told || this_thread().flat != 2)
    return;
  now.region_told = true;
  const std::string text = "operations that the program calls inside of a parallel region (at::parallel_for) are not seen, and "
                           "patches do not hold there: use threads of the program's own";
  core->note(gp_str(text));
}

// Begins a run where the operation begins one.
static void begin_at(const Dispatched& call, const OpInfo& info, const Owner* owner) {
  if (sees_modules()     ? !has_flat_run() && !is_in_model() && !is_over_outside()
      : starts().empty() ? !has_flat_run()
                         : starts_run(call.op.schema(), info, owner))
    begin();
}

// Nothing is wanted any more of the run, or of the one that was to begin.
static void leave_run() {
  if (!starts().empty())
    core->flat_end();
  else if (sees_modules())
    run_is_over();
  else
    core->flat_thread(0);
}

static void run_in_flat(const Dispatched& call, const OpInfo& info) {
  if (!is_inside(this_thread()))
    return call.run();
  const torch::jit::Stack* stack = call.stack;
  intercept(this_thread(), call, info, written_by(info, stack->data() + (stack->size() - info.n_arguments)));
}

void intercept_flat(const Dispatched& call, const OpInfo& info) {
  const torch::jit::Stack* stack = call.stack;
  const bool in_region = !own_calls && at::in_parallel_region();
  if (own_calls || in_region || backward_node()) {
    known().called_in_region |= in_region;
    has_memory_for([] { tell_of_region(); });
    call.run();
    return;
  }
  // Held while the operation runs, since the operation may make another registry known.
  std::shared_ptr<const Registry> registry;
  const Owner* owner = nullptr;
  const Place* place = nullptr;
  const bool ready = has_memory_for([&] {
    registry = learned();
    owner = owner_of(*registry, info, stack->data() + (stack->size() - info.n_arguments));
    begin_at(call, info, owner);
    if (sees_modules())
      place = place_of(*registry, owner);
  });
  if (!ready || !has_memory_for([] { tell_of_region(); })) {
    call.run();
    return;
  }
  if (!has_flat_run() || core->flat_next() == GP_NEXT_OVER) {
    leave_run();
    call.run();
    return;
  }
  const FlatRunNow now;
  if (!registry->tensors.empty() && is_inside(this_thread()))
    has_memory_for([&] { show_readers(*registry, info, stack->data() + (stack->size() - info.n_arguments)); });
  if (sees_modules()) {
    const AtPlace here(place);
    run_in_flat(call, info);
    has_memory_for([&] { remember_results(stack->data() + (stack->size() - info.n_returns), info.n_returns); });
  } else {
    const OwnersScope scope(owner);
    run_in_flat(call, info);
  }
  end_with_thread();
}

// An operation of a thread that has no flat run and no other one. libtorch hands what a thread has set on to its tasks on other
// threads: the operation came here because the thread that began the task has a flat run, or another one that is seen.
void tell_of_task() {
  if (!started || own_calls || backward_node())
    return;
  const std::string text = "operations in tasks on libtorch's own threads (at::launch, jit::fork) are not seen, and patches do "
                           "not hold there: use threads of the program's own";
  core->note(gp_str(text));
}

void flat_thread() {
  if (!this_thread().flat)
    core->flat_thread(1);
}

static void add_starts(const GpStr* run_at, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const std::string path = to_string(run_at[i]);
    const auto dot = path.rfind('.');
    if (dot == std::string::npos) {
      starts().push_back({"", path});
    } else {
      std::string module = path.substr(0, dot);
      std::replace(module.begin(), module.end(), '.', '_');
      starts().push_back({module, path.substr(dot + 1)});
    }
  }
}

void flat_start(const GpStr* run_at, size_t n) {
  if (!without_exceptions([&] { add_starts(run_at, n); }))
    return;
  started = true;
  flat_thread();
}

void flat_forked() {
  core->flat_end();
}

void own_enter() {
  ++own_calls;
}

void own_leave(const void* module) {
  // The counter is still 1, so the members that reading the module calls are not recorded either.
  if (own_calls == 1 && module)
    without_exceptions([&] {
      try {
        register_module(module);
      } catch (const std::exception& error) {
        const std::string why = std::string("a module's parameters could not be listed: ") + error.what();
        core->note(gp_str(why));
      }
    });
  --own_calls;
}

} // namespace graphpatch
