// The adapter: the only part of libgraphpatch that is compiled against libtorch. One shared object per libtorch
// build, loaded by the core (torch/loader) into a process that has libtorch already.
#include "adapter.h"

#include <c10/macros/Macros.h>
#include <torch/version.h>

#include "device.cpp"
#include "fallback.cpp"
#include "instrument.cpp"
#include "operands.cpp"
#include "patch.cpp"
#include "script.cpp"
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

static GpStr start() {
  try {
    start_fallback();
    start_script();
    return answer("");
  } catch (const std::exception& error) {
    return answer(error.what());
  }
}

static GpStr run_begin(GpRoot* root) {
  Thread& thread = this_thread();
  if (thread.run)
    return answer("a run is already open on this thread");
  uint32_t flags = 0;
  thread.run = core->run_begin(root, &flags);
  if (thread.run)
    enter_root(flags);
  return answer("");
}

static GpStr run_end() {
  end_run();
  return answer("");
}

static GpStr scope_enter(GpScope* scope) {
  if (this_thread().run)
    enter_scope(scope);
  return answer("");
}

static GpStr scope_leave() {
  if (this_thread().run)
    leave_scope();
  return answer("");
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
  table.run_end = graphpatch::run_end;
  table.scope_enter = graphpatch::scope_enter;
  table.scope_leave = graphpatch::scope_leave;
  table.tensor_from_torch = graphpatch::tensor_from_torch;
  table.tensor_free = graphpatch::tensor_free;
  table.kept_read = graphpatch::kept_read;
  table.kept_lend = graphpatch::kept_lend;
  table.kept_free = graphpatch::kept_free;
  return &table;
}
