// Flat runs: what a thread calls outside of all runs that a host tells of. The thread is armed for good; its run begins at
// its first operation (or anew at each operation that the user has named) and ends with the thread. An operation that
// reads parameters of one registered module stands in that module's scope, which is entered for it alone.
#include "registry.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>

namespace graphpatch {

struct FlatRun {
  GpRun* run = nullptr;
  std::vector<Frame> frames; // the root's, while no operation is under way
  std::vector<c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>> seen;
  std::shared_ptr<const Registry> registry;
  uint64_t generation = 0;
};

static void end(FlatRun& flat) {
  if (GpRun* run = std::exchange(flat.run, nullptr))
    core->run_end(run);
  flat.frames.clear();
  flat.seen.clear();
}

void FlatRunEnd::operator()(FlatRun* flat) const {
  end(*flat);
  delete flat;
}

static void disarm(Thread& thread) {
  thread.flat.reset();
  c10::impl::tls_set_dispatch_key_included(kKey, false);
}

// Where a new run begins.
struct Start {
  std::string module; // empty: anywhere
  std::string op;
};

// Set once, before any thread is armed.
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

static bool starts_run(const c10::FunctionSchema& schema, const OpInfo& info, const Place* place) {
  if (!info.starts)
    return false;
  const std::string op = base_name(schema);
  for (const Start& start : starts())
    if (start.op == op && (start.module.empty() || (place && place->name == start.module)))
      return true;
  return false;
}

// The module whose parameters a value's tensors are. False: those of several, or of none in particular.
static bool find_place(const Registry& registry, const c10::IValue& value, const Place*& place) {
  if (value.isTensor()) {
    const auto found = registry.tensors.find(value.toTensor().unsafeGetTensorImpl());
    if (found == registry.tensors.end())
      return true;
    const Place* own = found->second.place.get();
    const bool same = own && (!place || place == own);
    place = own;
    return same;
  }
  if (value.isTensorList() || value.isOptionalTensorList())
    for (const c10::IValue& element : value.toListRef())
      if (!find_place(registry, element, place))
        return false;
  return true;
}

static const Place* place_of(const Registry& registry, const OpInfo& info, const c10::IValue* values) {
  if (registry.tensors.empty())
    return nullptr;
  const Place* place = nullptr;
  for (size_t i = 0; i < info.n_arguments; ++i) {
    const bool written = i < 64 && (info.written >> i & 1);
    if (!written && !find_place(registry, values[i], place))
      return nullptr;
  }
  return place;
}

static void begin(FlatRun& flat) {
  GpOpened opened{};
  const Registry& registry = *flat.registry;
  flat.run = core->flat_begin(registry.root, &opened);
  if (!flat.run)
    return;
  flat.frames.emplace_back();
  flat.frames.back().flags = opened.flags;
  if (opened.flags & GP_FRAME_PARAMETERS)
    core->run_parameters(flat.run, registry.identities.data(), registry.identities.size());
}

// What modules are known now.
static void learn(FlatRun& flat) {
  const uint64_t generation = registry_generation;
  if (flat.registry && flat.generation == generation)
    return;
  flat.generation = generation;
  flat.registry = present_registry();
  const auto& identities = flat.registry->identities;
  if (flat.run)
    flat.frames.front().flags =
        core->flat_root(flat.run, flat.registry->root, identities.data(), identities.size());
}

// For one operation the flat run is the thread's run.
class Now {
 public:
  explicit Now(Thread& thread) : thread_(thread), flat_(*thread.flat) {
    swap();
    thread_.flat_now = true;
  }
  ~Now() {
    thread_.flat_now = false;
    swap();
  }

 private:
  void swap() {
    std::swap(thread_.run, flat_.run);
    std::swap(thread_.frames, flat_.frames);
    std::swap(thread_.seen, flat_.seen);
  }
  Thread& thread_;
  FlatRun& flat_;
};

class InPlace {
 public:
  explicit InPlace(const Place* place) : entered_(place) {
    if (place)
      enter_scope(place->scope);
  }
  ~InPlace() {
    if (entered_)
      leave_scope();
  }

 private:
  bool entered_;
};

// Made after everything else that an operation needs of its thread, so destroyed before it: what the thread's other
// destructors call is not intercepted.
struct Ender {
  bool touched = false;
  ~Ender() {
    disarm(this_thread());
  }
};

static thread_local uint32_t own_calls = 0;

void intercept_flat(const c10::OperatorHandle& op, torch::jit::Stack* stack, const OpInfo& info) {
  Thread& thread = this_thread();
  FlatRun& flat = *thread.flat;
  if (own_calls || at::in_parallel_region() || torch::autograd::get_current_node()) {
    op.callBoxed(stack);
    return;
  }
  learn(flat);
  // For as long as the operation runs; it may be one that makes another registry known.
  const std::shared_ptr<const Registry> registry = flat.registry;
  const Place* place = place_of(*registry, info, stack->data() + (stack->size() - info.n_arguments));
  if (starts().empty() ? !flat.run : starts_run(op.schema(), info, place)) {
    end(flat);
    begin(flat);
  }
  uint32_t flags = 0;
  const uint32_t next = flat.run ? core->flat_next(flat.run, &flags) : uint32_t{GP_NEXT_OVER};
  if (next == GP_NEXT_OVER) {
    end(flat);
    if (starts().empty())
      disarm(thread);
    op.callBoxed(stack);
    return;
  }
  if (next == GP_NEXT_STOPPED) {
    flat.frames.front().flags = flags;
    flat.seen.clear();
  }
  {
    Now now(thread);
    InPlace in(place);
    if (thread.cold)
      op.callBoxed(stack);
    else
      intercept(op, stack, info, info.written);
  }
  static thread_local Ender ender;
  ender.touched = true;
}

void flat_thread() {
  Thread& thread = this_thread();
  if (thread.flat)
    return;
  thread.flat.reset(new FlatRun);
  c10::impl::tls_set_dispatch_key_included(kKey, true);
}

void flat_start(const GpStr* run_at, size_t n) {
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
  flat_thread();
}

void flat_forked() {
  for (Thread* thread = &this_thread(); thread; thread = thread->outer.get())
    if (thread->flat)
      end(*thread->flat);
}

void own_enter() {
  ++own_calls;
}

void own_leave(const void* module) {
  // Reading the module calls members of it, too.
  if (own_calls == 1 && module) {
    try {
      register_module(module);
    } catch (const std::exception& error) {
      const std::string why = std::string("a module's parameters could not be listed: ") + error.what();
      core->note(gp_str(why));
    }
  }
  --own_calls;
}

} // namespace graphpatch
