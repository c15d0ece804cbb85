// Models that AOTInductor has compiled to machine code. They call kernels, not the dispatcher. Where the sources in the package
// tell which ones, a run of such a model is a run of a root, or a scope in another run, and each value that its kernels leave
// in memory is a node; see package_values.cpp. Otherwise a run is one operation, `aoti_model`, whose outputs are seen and
// patched like those of any other operation. Calls that its kernels make into libtorch go through libtorch's C functions and
// give no nodes.
//
// libtorch's runner has one virtual method by which every host reaches the model (the loader of packages in Python and C++, or
// a runner alone). Our function takes that method's place in the runner's table, for good, and calls libtorch's own one.
#include "adapter.h"

#include <c10/util/hash.h>
#include <torch/library.h>

#if __has_include(<torch/csrc/inductor/aoti_runner/model_container_runner.h>)
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>

#include "package.h"

#include <dlfcn.h>
#include <mutex>
#include <unordered_map>

#include "package_hooks.cpp"
#include "package_slots.cpp"
#include "package_values.cpp"

// These are NULL in a libtorch without the runner, or whose runner has no such method. A table ends where the next one begins.
// The method stands behind the two entries of the type and the two destructors.
extern "C" {
__attribute__((weak)) extern void* graphpatch_runner_table[] __asm__("_ZTVN5torch8inductor24AOTIModelContainerRunnerE");
__attribute__((weak)) extern void* graphpatch_cpu_runner_table[] __asm__("_ZTVN5torch8inductor27AOTIModelContainerRunnerCpuE");
__attribute__((weak)) extern void graphpatch_runner_run() __asm__(
    "_ZN5torch8inductor24AOTIModelContainerRunner8run_implERSt6vectorIP16AtenTensorOpaqueSaIS4_EEPv");
}

namespace graphpatch {

namespace packages {

using Runner = torch::inductor::AOTIModelContainerRunner;
using Handles = std::vector<AtenTensorHandle>;
using Run = std::vector<at::Tensor> (*)(Runner*, Handles&, void*);

constexpr size_t kRunEntry = 4;

// A run that passes through the dispatcher. The handles are tensors on the heap, which the model takes over.
struct Call {
  Runner* runner;
  Handles* handles;
  void* stream;
  bool taken = false;
};
thread_local Call* call = nullptr;

Run own_run() {
  return reinterpret_cast<Run>(&graphpatch_runner_run);
}

at::Tensor& tensor_of(AtenTensorHandle handle) {
  return *reinterpret_cast<at::Tensor*>(handle);
}

void delete_all(const Handles& handles) {
  for (AtenTensorHandle handle : handles)
    delete &tensor_of(handle);
}

// The operator's kernel: runs the model itself, with the inputs that patches may have changed.
void run_taken(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  Call* now = std::exchange(call, nullptr);
  TORCH_CHECK(now, "graphpatch::aoti_model stands for the run of a model that AOTInductor has compiled; it cannot be called");
  const c10::IValue inputs = torch::jit::pop(*stack);
  const auto tensors = inputs.toTensorList();
  for (size_t i = 0; i < tensors.size(); ++i)
    tensor_of((*now->handles)[i]) = tensors.get(i);
  now->taken = true;
  torch::jit::push(*stack, c10::List<at::Tensor>(own_run()(now->runner, *now->handles, now->stream)));
}

// Gives access to a member that only derived classes may name.
struct Loaded : Runner {
  static const void* entry(const Runner& runner) {
    return reinterpret_cast<const void*>(runner.*(&Loaded::run_func_));
  }
};

// A name that a person recognizes: the path of the model's library in the package, without the folder that it was unpacked
// into.
std::string name_of(const Runner& runner) {
  Dl_info info{};
  const void* entry = Loaded::entry(runner);
  const std::string path = entry && dladdr(entry, &info) && info.dli_fname ? info.dli_fname : "";
  const auto inside = path.rfind("data/aotinductor/");
  return inside == std::string::npos ? path : path.substr(inside) + " of its package";
}

// What a run of such a model is told of, once for each session and model.
enum class Told : uint8_t { kOneOperation, kOutside };

void tell(const Runner& runner, Told which, const std::string& what) {
  if (!core->first_note(c10::get_hash(Loaded::entry(runner), objects_removed(), static_cast<uint8_t>(which))))
    return;
  has_memory_for([&] {
    const std::string text = "a model that AOTInductor has compiled (" + name_of(runner) + ") " + what;
    core->note(gp_str(text));
  });
}

bool is_armed() {
  return c10::impl::tls_is_dispatch_key_included(kKey) && !c10::impl::tls_is_dispatch_key_excluded(kKey);
}

std::vector<at::Tensor> run_as_operation(Runner* runner, Handles& handles, void* stream) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("graphpatch::aoti_model", "");
  torch::jit::Stack stack;
  const bool ready = has_memory_for([&] {
    c10::List<at::Tensor> inputs;
    for (AtenTensorHandle handle : handles)
      inputs.push_back(tensor_of(handle));
    stack.emplace_back(std::move(inputs));
  });
  if (!ready)
    return own_run()(runner, handles, stream);
  Call now{runner, &handles, stream};
  call = &now;
  try {
    op.callBoxed(&stack);
  } catch (...) {
    call = nullptr;
    if (!now.taken)
      delete_all(handles);
    throw;
  }
  return stack.back().toTensorVector();
}

// What is known of the inside of a model.
struct Known {
  std::string library;
  uint64_t removed = 0; // 1 more than objects_removed() when this was found
  std::shared_ptr<const Inside> inside; // NULL if it cannot be seen
  std::string why;
};

Known look_inside(const void* entry, const std::string& library) {
  Known known{library, 0, nullptr, ""};
  GpStr why{};
  const GpPackage* package = core->package_read(gp_str(library), &why);
  if (package)
    known.inside = hook(package, entry, known.why);
  else
    known.why = to_string(why);
  return known;
}

// The inside of the runner's model, which is looked for in its first run.
Known known_of(const Runner& runner) {
  static std::mutex mutex;
  static auto& all = *new std::unordered_map<const void*, Known>;
  const void* entry = Loaded::entry(runner);
  const Lock lock(mutex);
  Known& known = all[entry];
  const uint64_t removed = objects_removed();
  if (known.removed == removed + 1)
    return known;
  Dl_info info{};
  const bool found = entry && dladdr(entry, &info) && info.dli_fname;
  const std::string library = found ? info.dli_fname : "";
  // Another library may have taken the place of one that was removed.
  if (known.library != library || !known.inside || !is_hooked(*known.inside))
    known = look_inside(entry, library);
  known.removed = removed + 1;
  return known;
}

// The root's run, or the scope in another run, that a run of a model is.
class Open {
public:
  explicit Open(const GpPackage& package) {
    nested_ = this_thread().run;
    if (!nested_)
      declined_ = core->call_begin(package.root) == 0;
    if (!declined_)
      core->root_enter(package.scope);
  }
  ~Open() {
    if (nested_)
      core->scope_leave();
    else if (declined_)
      core->call_end();
    else
      core->run_end();
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;

private:
  bool nested_ = false;
  bool declined_ = false;
};

void show_inputs(Handles& handles) {
  try {
    for (size_t i = 0; i < handles.size(); ++i) {
      c10::IValue value(tensor_of(handles[i]));
      handle_scope_value(GP_VALUE_INPUT, static_cast<uint32_t>(i), &value, Ownership::Borrowed);
      tensor_of(handles[i]) = std::move(value).toTensor();
    }
  } catch (const std::bad_alloc&) { // the model runs nevertheless
    throw;
  } catch (...) {
    delete_all(handles);
    throw;
  }
}

// The model takes the handles over, whether or not it comes to its end.
std::vector<at::Tensor> run_open(const Inside& inside, Runner* runner, Handles& handles, void* stream) {
  const bool shown = has_memory_for([&] { show_inputs(handles); });
  std::vector<at::Tensor> results;
  {
    Running now(inside, handles);
    results = own_run()(runner, handles, stream);
    now.end();
  }
  if (shown)
    has_memory_for([&] {
      std::vector<c10::IValue> values(results.begin(), results.end());
      results.clear(); // so that a result that nobody else holds can be written in place
      c10::IValue value =
          values.size() == 1 ? std::move(values[0]) : c10::IValue(c10::ivalue::Tuple::create(std::move(values)));
      handle_scope_value(GP_VALUE_OUTPUT, 0, &value, Ownership::Result);
      if (value.isTensor())
        results.push_back(std::move(value).toTensor());
      else
        for (const c10::IValue& element : value.toTupleRef().elements())
          results.push_back(element.toTensor());
    });
  return results;
}

std::vector<at::Tensor> run_inside(const Inside& inside, Runner* runner, Handles& handles, void* stream) {
  const Open open(*inside.package);
  if (!is_inside(this_thread()))
    return own_run()(runner, handles, stream);
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  return run_open(inside, runner, handles, stream);
}

std::vector<at::Tensor> run(Runner* runner, Handles& handles, void* stream) {
  const GpThread& thread = this_thread();
  if (!may_matter(thread))
    return own_run()(runner, handles, stream);
  Known known;
  if (!has_memory_for([&] { known = known_of(*runner); }))
    return own_run()(runner, handles, stream);
  if (known.inside && handles.size() == known.inside->package->n_inputs)
    return run_inside(*known.inside, runner, handles, stream);
  if (is_armed()) {
    const std::string what =
        "is one operation, `aoti_model`: its outputs can be seen and patched, what it computes inside cannot, "
        "because " +
        known.why + ". To see that, run the exported program or the model that it was compiled from";
    tell(*runner, Told::kOneOperation, what);
    return run_as_operation(runner, handles, stream);
  }
  if (!thread.run)
    tell(*runner, Told::kOutside,
         "was run outside of every call of a module: nothing of it was seen. Call it in the forward of a module to "
         "see its outputs");
  return own_run()(runner, handles, stream);
}

} // namespace packages

void register_packages() {
  // Kept as long as the process lives, since the table's entry stays. The kernel is for all keys, so that autograd and modes
  // see what they would see without us.
  static auto* library = new torch::Library(torch::Library::FRAGMENT, "graphpatch", std::nullopt, __FILE__, __LINE__);
  library->def("aoti_model(Tensor[] inputs) -> Tensor[]");
  library->impl("aoti_model", torch::CppFunction::makeFromBoxedFunction<&packages::run_taken>());
  for (void** table : {graphpatch_runner_table, graphpatch_cpu_runner_table}) {
    if (!table || !&graphpatch_runner_run || table[packages::kRunEntry] != reinterpret_cast<void*>(&graphpatch_runner_run))
      continue;
    if (!packages::replace_word(table + packages::kRunEntry, reinterpret_cast<void*>(&packages::run)))
      core->note(gp_str("models that AOTInductor has compiled are not seen: the table of their runner cannot be written"));
  }
}

} // namespace graphpatch

#else

namespace graphpatch {

void register_packages() {
}

} // namespace graphpatch

#endif
