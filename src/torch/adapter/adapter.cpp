// The adapter: the only part of libgraphpatch that is compiled against libtorch. One shared object per libtorch
// build, loaded by the core (torch/loader) into a process that has libtorch already.
#include "adapter.h"

#include <c10/macros/Macros.h>
#include <torch/version.h>

#include "args.cpp"
#include "device.cpp"
#include "fallback.cpp"
#include "flat.cpp"
#include "instrument.cpp"
#include "operands.cpp"
#include "patch.cpp"
#include "registry.cpp"
#include "script.cpp"
#include "shown.cpp"
#include "source.cpp"
#include "thread.cpp"
#include "value.cpp"
#include "write.cpp"

namespace graphpatch {

const GpCore* core = nullptr;

static GpStr answer(const std::string& text) {
  static thread_local std::string last;
  last = text;
  return gp_str(last);
}

// A step that was done is not done again when a later one failed and the core tries once more.
static GpStr start() {
  static void (*const kSteps[])() = {start_fallback, start_script, register_doors};
  static size_t done = 0; // the core calls from one thread at a time
  try {
    for (; done < std::size(kSteps); ++done)
      kSteps[done]();
    return answer("");
  } catch (const std::exception& error) {
    return answer(error.what());
  }
}

// The run that `begun` is goes on here, in the place of the one that was suspended for it.
static GpStr go_on(GpRun* begun, bool suspended, const GpOpened& opened) {
  if (begun) {
    this_thread().run = begun;
    enter_root(opened.flags);
  } else if (suspended) {
    take_up();
  }
  return answer("");
}

static GpStr run_begin(GpRoot* root, const void* session, GpOpened* opened) {
  *opened = GpOpened{};
  const bool inside = this_thread().run != nullptr;
  if (inside && !session)
    return answer("a run is already open on this thread");
  if (inside)
    suspend();
  GpRun* run = core->run_begin(root, session, opened);
  return go_on(run, inside, *opened);
}

static GpStr run_resume(const void* snapshot, uint32_t record, GpOpened* opened) {
  *opened = GpOpened{};
  const bool inside = this_thread().run != nullptr;
  if (inside)
    suspend();
  GpRun* run = core->run_resume(snapshot, record, opened);
  return go_on(run, inside, *opened);
}

static GpStr run_end() {
  end_run();
  return answer("");
}

static void run_parameters(const void* const* identities, size_t n) {
  if (this_thread().run)
    give_parameters(this_thread(), identities, n);
}

static void* run_snapshot() {
  return this_thread().run ? core->run_snapshot(this_thread().run) : nullptr;
}

static GpStr scope_enter(GpScope* scope, uint32_t* flags) {
  *flags = this_thread().run ? enter_scope(scope) : 0;
  return answer("");
}

static GpStr scope_leave() {
  if (this_thread().run)
    leave_scope();
  return answer("");
}

static void scope_next(GpScope* scope) {
  this_thread().called = this_thread().run ? scope : nullptr;
}

static uint32_t scope_depth() {
  const Thread& thread = this_thread();
  return static_cast<uint32_t>(thread.frames.size()) + (thread.cold ? thread.cold - 1 : 0);
}

static void scope_unwind(uint32_t depth) {
  this_thread().called = nullptr;
  while (this_thread().run && scope_depth() > depth)
    leave_scope();
}

static void* tensor_from_torch(const void* impl) {
  if (!impl)
    return nullptr;
  auto* tensor = static_cast<c10::TensorImpl*>(const_cast<void*>(impl));
  return new at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(tensor));
}

static void tensor_free(void* tensor) {
  delete static_cast<at::Tensor*>(tensor);
}

} // namespace graphpatch

extern "C" C10_EXPORT const GpAdapter* graphpatch_adapter_entry(const GpCore* core) {
  static GpAdapter table{};
  if (!core || core->version != GP_SEAM_VERSION || core->size != sizeof(GpCore))
    return nullptr;
  graphpatch::core = core;
  table.version = GP_SEAM_VERSION;
  table.size = sizeof(GpAdapter);
  table.libtorch_version = graphpatch::gp_str(TORCH_VERSION);
  table.start = graphpatch::start;
  table.run_begin = graphpatch::run_begin;
  table.run_resume = graphpatch::run_resume;
  table.run_end = graphpatch::run_end;
  table.run_parameters = graphpatch::run_parameters;
  table.run_snapshot = graphpatch::run_snapshot;
  table.scope_enter = graphpatch::scope_enter;
  table.scope_leave = graphpatch::scope_leave;
  table.scope_next = graphpatch::scope_next;
  table.scope_depth = graphpatch::scope_depth;
  table.scope_unwind = graphpatch::scope_unwind;
  table.value = graphpatch::show_value;
  table.leaf = graphpatch::shown_leaf;
  table.tensor_from_torch = graphpatch::tensor_from_torch;
  table.tensor_free = graphpatch::tensor_free;
  table.kept_read = graphpatch::kept_read;
  table.kept_lend = graphpatch::kept_lend;
  table.kept_free = graphpatch::kept_free;
  table.flat_start = graphpatch::flat_start;
  table.flat_thread = graphpatch::flat_thread;
  table.flat_forked = graphpatch::flat_forked;
  table.own_enter = graphpatch::own_enter;
  table.own_leave = graphpatch::own_leave;
  return &table;
}
