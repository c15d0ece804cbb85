// The operator by which compiled code reports a value. It stands in the code behind the operation that computes the value, and
// applies the patches that the thread's run has for it. Without an open run, or without such a patch, it does nothing.
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
  has_memory_for([&] { handle_value(token, GP_VALUE_TARGETS, &value, 1, Ownership::InPlace); });
}

void register_tap() {
  // Kept as long as the process lives, since compiled code may call it at any time.
  static auto* library = new torch::Library(torch::Library::FRAGMENT, "graphpatch", std::nullopt, __FILE__, __LINE__);
  library->def("tap(Tensor(a!) value, str path) -> ()");
  library->impl(
      "tap", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, torch::CppFunction::makeFromBoxedFunction<&tap>()));
}

} // namespace graphpatch
