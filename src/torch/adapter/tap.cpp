// The operator by which compiled code tells of a value: it stands in the code behind the operation that computes it, and
// applies the patches of the thread's run there. Where no run is open, or no patch stands there, it does nothing.
#include "adapter.h"

#include <torch/library.h>

namespace graphpatch {

static void tap(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const c10::IValue path = torch::jit::pop(*stack);
  c10::IValue value = torch::jit::pop(*stack);
  GpToken token;
  if (!is_inside(this_thread()) || value.toTensor().is_meta() || !core->tap(gp_str(path.toStringRef()), &token))
    return;
  c10::impl::ExcludeDispatchKeyGuard outside(kKey);
  handle_value(token, GP_VALUE_TARGETS, &value, 1, Ownership::InPlace);
}

void register_tap() {
  // Kept for the life of the process: compiled code may call it whenever this could be taken back.
  static auto* library = new torch::Library(torch::Library::FRAGMENT, "graphpatch", std::nullopt, __FILE__, __LINE__);
  library->def("tap(Tensor(a!) value, str path) -> ()");
  library->impl(
      "tap", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, torch::CppFunction::makeFromBoxedFunction<&tap>()));
}

} // namespace graphpatch
