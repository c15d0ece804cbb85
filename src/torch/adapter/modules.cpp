// Calls of torch::nn modules in programs that report none themselves. The core has hooks in front of their forward functions. A
// call of a model's outermost module is a flat run of that model; a call inside it is a scope. The compiler may have put a
// forward into its caller's, so that its calls cannot be seen. Such a module is a scope where a module in it is called. If it
// is the outermost one, a run begins with the first call of a module of the model, and the next run where that module is called
// again after others, or if it is the only one.
#include "flat.h"

#include <ATen/Parallel.h>

#include <array>
#include <map>

namespace graphpatch {

struct Place {
  Place* outer = nullptr; // null: a run's root
  std::shared_ptr<const KnownModule> module; // null: the root of what is called outside of all models
  std::unique_ptr<Scope> scope; // null: a run's root, which is entered with its run
  std::map<std::pair<const KnownModule*, size_t>, std::unique_ptr<Place>> inside; // by module and number of the call
  // How often each module was called from here, in the thread's run of that number.
  std::unordered_map<const KnownModule*, size_t> calls;
  uint64_t run = 0;
};

// Further calls of a module from one place of a run are taken for this one, so that their scopes need no more memory.
constexpr size_t kMostCalls = 4096;

// A call that has not returned yet.
struct OpenCall {
  uint64_t number;
  Place* place;
  bool is_run;
};

// What a thread knows of its calls of modules.
struct Calls {
  std::vector<OpenCall> open;
  std::map<const KnownModule*, std::unique_ptr<Place>> roots;
  uint64_t run = 0; // the number of the thread's runs of models
  uint64_t last = 0; // the number of the last call
  // The outermost module of the model whose run this is. Null: the run is none of a model.
  std::shared_ptr<const KnownModule> model;
  // If the call of the outermost module cannot be seen: the module with whose call the run has begun.
  std::shared_ptr<const KnownModule> first;
  bool others = false; // whether other modules were called since then
  bool over_outside = false;
  // Tensors that operations have given lately. Their addresses are kept in use.
  std::array<std::optional<WeakTensor>, 32> recent;
  size_t next = 0;
};

static std::atomic<bool> told_of_modules{false};

// A pointer, so that the thread may look at it after its other thread-local objects are gone.
static thread_local Calls* thread_calls = nullptr;

static Calls& calls() {
  if (!thread_calls) {
    thread_calls = new Calls;
    end_with_thread();
  }
  return *thread_calls;
}

void forget_calls() {
  delete std::exchange(thread_calls, nullptr);
}

void modules_start() {
  told_of_modules = true;
}

bool sees_modules() {
  return told_of_modules.load(std::memory_order_relaxed);
}

bool is_in_model() {
  return thread_calls && thread_calls->model;
}

bool is_over_outside() {
  return thread_calls && thread_calls->over_outside;
}

const Model* model_of_run(const Registry& registry) {
  const auto found = is_in_model() ? registry.models.find(thread_calls->model->model) : registry.models.end();
  return found == registry.models.end() ? nullptr : found->second.get();
}

void run_is_over() {
  core->flat_end();
  if (!is_in_model())
    calls().over_outside = true;
}

static bool is_below(const KnownModule& module, const KnownModule& above) {
  return module.model == above.model && !module.path.empty() &&
         (above.path.empty() || module.path.compare(0, above.path.size() + 1, above.path + ".") == 0);
}

// The path by which the place's module is called from there.
static std::string path_from(const Place& outer, const KnownModule& module) {
  if (outer.module && outer.module->path == module.path) {
    const auto dot = module.path.rfind('.');
    return dot == std::string::npos ? module.path : module.path.substr(dot + 1);
  }
  if (outer.module && !outer.module->path.empty() && is_below(module, *outer.module))
    return module.path.substr(outer.module->path.size() + 1);
  return module.path;
}

// The path of the module below the run's root. What is called outside of all models has one root for all of them.
static std::string path_in_run(const Registry& registry, const Place& outer, const KnownModule& module) {
  const Place* root = &outer;
  while (root->outer)
    root = root->outer;
  const auto model = registry.models.find(module.model);
  if (root->module || module.model == 0 || model == registry.models.end())
    return module.path;
  return join_path(model->second->class_name + "#" + std::to_string(module.model + 1), module.path);
}

static size_t calls_before(Place& outer, const KnownModule* module) {
  if (outer.run != calls().run) {
    outer.run = calls().run;
    outer.calls.clear();
  }
  return outer.calls[module];
}

static Place& inside(const Registry& registry, Place& outer, const std::shared_ptr<const KnownModule>& module, size_t number) {
  auto& place = outer.inside[{module.get(), number}];
  if (!place) {
    auto made = std::make_unique<Place>();
    made->outer = &outer;
    made->module = module;
    made->scope = std::make_unique<Scope>(path_from(outer, *module), path_in_run(registry, outer, *module), module->class_name,
                                          std::vector<std::string>());
    place = std::move(made);
  }
  return *place;
}

// The place of the last call of the module from there, or of the first one if there was none.
static Place& last_call(const Registry& registry, Place& outer, const std::shared_ptr<const KnownModule>& module) {
  const size_t before = calls_before(outer, module.get());
  return inside(registry, outer, module, before ? before - 1 : 0);
}

static Place& next_call(const Registry& registry, Place& outer, const std::shared_ptr<const KnownModule>& module) {
  const size_t before = calls_before(outer, module.get());
  if (before < kMostCalls)
    ++outer.calls[module.get()];
  return last_call(registry, outer, module);
}

// Follows the modules between the place and a module below it.
static Place& way_to(const Registry& registry, Place& from, const KnownModule& module) {
  std::vector<std::shared_ptr<const KnownModule>> between;
  if (!from.module || is_below(module, *from.module))
    for (auto above = module.above; above && above != from.module && !above->path.empty(); above = above->above)
      between.push_back(above);
  Place* at = &from;
  for (auto step = between.rbegin(); step != between.rend(); ++step)
    at = &last_call(registry, *at, *step);
  return *at;
}

static Place& root_place(const std::shared_ptr<const KnownModule>& module) {
  auto& place = calls().roots[module.get()];
  if (!place) {
    place = std::make_unique<Place>();
    place->module = module;
  }
  return *place;
}

static Place& innermost() {
  return calls().open.empty() ? root_place(calls().model) : *calls().open.back().place;
}

const Place* place_of(const Registry& registry, const Owner* owner) {
  Place& at = innermost();
  const auto& module = owner ? owner->module : nullptr;
  if (!module || module->path.empty() || module->was_called || (is_in_model() && module->model != calls().model->model))
    return &at;
  if (at.module && !is_below(*module, *at.module))
    return &at;
  return &last_call(registry, way_to(registry, at, *module), module);
}

AtPlace::AtPlace(const Place* place) {
  if (place)
    enter(*place);
}

void AtPlace::enter(const Place& place) {
  if (!place.outer)
    return;
  enter(*place.outer);
  core->scope_enter(place.scope->handle());
  ++entered_;
}

AtPlace::~AtPlace() {
  while (entered_--)
    core->scope_leave();
}

static std::shared_ptr<const KnownModule> outermost(std::shared_ptr<const KnownModule> module) {
  while (module->above)
    module = module->above;
  return module;
}

static void begin_run(const Registry& registry, const std::shared_ptr<const KnownModule>& outermost) {
  Calls& mine = calls();
  const Model& model = *registry.models.at(outermost->model);
  mine.model = outermost;
  mine.first = nullptr;
  mine.others = false;
  ++mine.run;
  core->flat_begin(model.root, model.identities.data(), model.identities.size());
}

// A module other than the outermost one is called, and no other call is open.
static void begin_or_go_on(const Registry& registry, const std::shared_ptr<const KnownModule>& module) {
  Calls& mine = calls();
  if (mine.model && mine.model->model == module->model) {
    mine.others |= module != mine.first;
    const bool is_last = mine.others || registry.models.at(module->model)->n_leaves == 1;
    if (module != mine.first || !is_last)
      return;
  }
  begin_run(registry, outermost(module));
  mine.first = module;
}

// Returns 0 if the call is none that the run shows.
static uint64_t enter(const Registry& registry, const std::shared_ptr<const KnownModule>& module) {
  Calls& mine = calls();
  const bool is_outer = mine.open.empty();
  if (!is_outer && (!mine.model || module->model != mine.model->model)) // its operations are the caller's
    return 0;
  const bool is_run = is_outer && module->path.empty();
  if (is_run)
    begin_run(registry, module);
  else if (is_outer)
    begin_or_go_on(registry, module);
  Place& at = innermost();
  Place& place = module->path.empty() ? at : next_call(registry, way_to(registry, at, *module), module);
  mine.open.push_back({++mine.last, &place, is_run});
  module->was_called = true;
  return mine.last;
}

uint64_t module_enter(const void* address) {
  if (!sees_modules() || is_own_work())
    return 0;
  const GpThread& thread = this_thread();
  // The thread has no flat runs, or is in another run, or inside of an operation.
  if (!thread.flat || thread.run || thread.declined || c10::impl::tls_is_dispatch_key_excluded(kKey))
    return 0;
  if (at::in_parallel_region() || backward_node())
    return 0;
  uint64_t number = 0;
  without_exceptions([&] {
    const auto registry = learned();
    const auto found = registry->modules.find(address);
    if (found != registry->modules.end() && found->second->is_alive())
      number = enter(*registry, found->second);
  });
  return number;
}

void remember_results(const c10::IValue* results, size_t n) {
  if (!is_in_model())
    return;
  Calls& mine = calls();
  for (size_t i = 0; i < n; ++i)
    if (results[i].isTensor() && results[i].toTensor().defined())
      mine.recent[mine.next++ % mine.recent.size()].emplace(results[i].toTensor().getIntrusivePtr());
}

static bool is_recent(const void* tensor) {
  const auto& recent = thread_calls->recent;
  return std::any_of(recent.begin(), recent.end(),
                     [&](const auto& one) { return one && !one->expired() && one->_unsafe_get_target() == tensor; });
}

void module_output(uint64_t call, void* tensor, uint32_t is_sure) {
  if (!thread_calls || thread_calls->open.empty() || thread_calls->open.back().number != call || !has_flat_run())
    return;
  if (!is_sure && !is_recent(*static_cast<void**>(tensor)))
    return;
  auto& output = *static_cast<at::Tensor*>(tensor);
  if (!output.defined())
    return;
  without_exceptions([&] {
    const c10::impl::ExcludeDispatchKeyGuard outside(kKey);
    const FlatRunNow now;
    const AtPlace here(thread_calls->open.back().place);
    if (!(this_thread().wants & GP_WANTS_OUTPUT))
      return;
    c10::IValue value(std::move(output));
    without_exceptions([&] { handle_scope_value(GP_VALUE_OUTPUT, 0, &value, Ownership::Result); });
    if (value.isTensor())
      output = std::move(value).toTensor();
  });
}

void module_leave(uint64_t call) {
  if (!thread_calls)
    return;
  auto& open = thread_calls->open;
  const auto found = std::find_if(open.rbegin(), open.rend(), [&](const OpenCall& one) { return one.number == call; });
  if (found == open.rend())
    return;
  const bool is_run = found->is_run;
  open.erase(std::next(found).base());
  if (!is_run)
    return;
  thread_calls->model = nullptr;
  thread_calls->recent.fill(std::nullopt);
  thread_calls->over_outside = false;
  core->flat_end();
}

} // namespace graphpatch
