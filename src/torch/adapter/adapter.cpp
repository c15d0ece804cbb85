// The adapter: the only part of libgraphpatch that is compiled against libtorch. One shared object per libtorch
// build, loaded by the core into a process that has libtorch already.
//
// It is one translation unit, because the first build on a machine is waited for: libtorch's headers cost far more than our
// code. With libtorch 2.11, `g++ -std=c++17 -O2 -fPIC -DNDEBUG -c adapter.cpp` takes 19 s of one core. Compiled one by one
// (without the lines that include them here, `ls *.cpp | xargs -P2 -I{} g++ ... -c {}`), the parts take 153 s, so more than a
// minute on two cores. For the same reason ATen/Functions.h and ATen/NativeFunctions.h of this folder stand in front of
// libtorch's: on a machine where all this took 32 s of CPU time, it took 29 s with them, and 24 s with the options of build.rs.
#include "adapter.h"

#include <c10/macros/Macros.h>
#include <torch/version.h>

#include "args.cpp"
#include "attention.cpp"
#include "cell.cpp"
#include "containers.cpp"
#include "copy.cpp"
#include "device.cpp"
#include "distributed.cpp"
#include "executor.cpp"
#include "fallback.cpp"
#include "flat.cpp"
#include "gradients.cpp"
#include "host_values.cpp"
#include "instrument.cpp"
#include "leaf.cpp"
#include "mirror.cpp"
#include "modules.cpp"
#include "operands.cpp"
#include "package.cpp"
#include "patch.cpp"
#include "readers.cpp"
#include "registry.cpp"
#include "script.cpp"
#include "source.cpp"
#include "tap.cpp"
#include "thread.cpp"
#include "value.cpp"
#include "write.cpp"

namespace graphpatch {

const GpCore* core = nullptr;

// If a step fails, the core may call this again. The steps that were done are then not repeated.
static GpStr start() {
  static void (*const kSteps[])() = {start_fallback, start_script,      register_host_operators, register_cells,
                                     register_tap,   register_packages, register_parts};
  static size_t done = 0; // the core calls from one thread at a time
  GpStr why = gp_str("there was no memory for it");
  without_exceptions([&] {
    try {
      for (; done < std::size(kSteps); ++done)
        kSteps[done]();
      why = gp_str("");
    } catch (const std::bad_alloc&) { // what has it for a reason may be without memory as well
    } catch (const std::exception& error) {
      why = answer(error.what());
    }
  });
  return why;
}

static void* tensor_from_torch(const void* impl) {
  if (!impl)
    return nullptr;
  at::Tensor* made = nullptr;
  without_exceptions([&] { made = new at::Tensor(tensor_at(impl)); });
  return made;
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
  table.listen = graphpatch::listen;
  table.arm = graphpatch::arm;
  table.suspend = graphpatch::suspend;
  table.resume = graphpatch::resume;
  table.node = graphpatch::backward_node;
  table.held_leave = graphpatch::held_leave;
  table.held_end = graphpatch::held_end;
  table.held_free = graphpatch::held_free;
  table.keep_addresses = graphpatch::keep_addresses;
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
  table.modules_start = graphpatch::modules_start;
  table.module_enter = graphpatch::module_enter;
  table.module_output = graphpatch::module_output;
  table.module_leave = graphpatch::module_leave;
  return &table;
}
