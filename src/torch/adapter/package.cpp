// Models that AOTInductor has compiled to machine code. They call kernels, not the dispatcher, so one run of such a model is
// one operation here, `aoti_model`. Its outputs are seen and patched like those of any other operation. Calls that its kernels
// make into libtorch go through libtorch's C functions and give no nodes.
//
// libtorch's runner has one virtual method by which every host reaches the model (the loader of packages in Python and C++, or
// a runner alone). Our function takes that method's place in the runner's table, for good, and calls libtorch's own one.
#include "adapter.h"

#include <c10/util/hash.h>
#include <torch/library.h>

#if __has_include(<torch/csrc/inductor/aoti_runner/model_container_runner.h>)
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>

#include <cstddef>
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

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

// How many objects the dynamic linker has ever removed. As long as none is removed, none takes the address of another.
uint64_t objects_removed() {
  uint64_t removed = 0;
  core->lock_enter(); // a lock of the dynamic linker's is taken, and a fork has to find it free
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t size, void* removed) {
        if (size >= offsetof(dl_phdr_info, dlpi_subs) + sizeof(object->dlpi_subs))
          *static_cast<uint64_t*>(removed) = object->dlpi_subs;
        return 1;
      },
      &removed);
  core->lock_leave();
  return removed;
}

// What a run of such a model is told of, once for each session and model.
enum class Told : uint8_t { kOneOperation, kOutside };

void tell(const Runner& runner, Told which, const char* what) {
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
      for (AtenTensorHandle handle : handles)
        delete &tensor_of(handle);
    throw;
  }
  return stack.back().toTensorVector();
}

std::vector<at::Tensor> run(Runner* runner, Handles& handles, void* stream) {
  const GpThread& thread = this_thread();
  if (!may_matter(thread))
    return own_run()(runner, handles, stream);
  if (is_armed()) {
    tell(*runner, Told::kOneOperation,
         "is one operation, `aoti_model`: its outputs can be seen and patched, what it computes inside cannot. "
         "To see that, run the exported program or the model that it was compiled from");
    return run_as_operation(runner, handles, stream);
  }
  if (!thread.run)
    tell(*runner, Told::kOutside,
         "was run outside of every call of a module: nothing of it was seen. Call it in the forward of a module to "
         "see its outputs");
  return own_run()(runner, handles, stream);
}

// Whether the dynamic linker made these bytes read-only after it had written them.
bool is_sealed(uintptr_t address) {
  struct Search {
    uintptr_t address;
    bool found;
  } search{address, false};
  core->lock_enter(); // as above
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* data) {
        auto& search = *static_cast<Search*>(data);
        for (size_t i = 0; i < object->dlpi_phnum; ++i) {
          const auto& part = object->dlpi_phdr[i];
          const uintptr_t begin = object->dlpi_addr + part.p_vaddr;
          if (part.p_type == PT_GNU_RELRO && begin <= search.address && search.address < begin + part.p_memsz)
            search.found = true;
        }
        return search.found ? 1 : 0;
      },
      &search);
  core->lock_leave();
  return search.found;
}

// Replaces the entry. Returns false if the system does not allow that.
bool replace(void** entry) {
  const auto address = reinterpret_cast<uintptr_t>(entry);
  const uintptr_t size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void* page = reinterpret_cast<void*>(address & ~(size - 1));
  const bool sealed = is_sealed(address);
  if (sealed && mprotect(page, size, PROT_READ | PROT_WRITE) != 0)
    return false;
  // Other threads may be reading it.
  __atomic_store_n(entry, reinterpret_cast<void*>(&run), __ATOMIC_RELEASE);
  if (sealed)
    mprotect(page, size, PROT_READ);
  return true;
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
    if (!packages::replace(table + packages::kRunEntry))
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
