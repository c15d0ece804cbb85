// A function's own executor differentiates parts of it by TorchScript's formulas; our plan leaves all of it to autograd. Values
// are the same, gradients are to rounding. Whether one will be asked for shows when it arrives: until then there is nothing
// to say.
#include "gradients.h"

#include <ATen/SequenceNumber.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>

namespace graphpatch {

void begin_gradients() {
  if (at::GradMode::is_enabled())
    held().history = at::sequence_number::peek();
}

static void watch_tensor(const at::Tensor& tensor, const std::string& function) {
  if (!tensor.defined() || !tensor.requires_grad())
    return;
  // A leaf, or what the caller has computed, is no result of the function.
  const auto node = tensor.grad_fn();
  if (!node || node->sequence_nr() < held().history)
    return;
  tensor.register_hook([function](const at::Tensor&) {
    const std::string note = function + ": a gradient came back through it; " + kOtherFormulas;
    core->note(gp_str(note));
  });
}

static void watch_all(const c10::IValue& value, const std::string& function) {
  if (value.isTensor()) {
    watch_tensor(value.toTensor(), function);
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements())
      watch_all(element, function);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef())
      watch_all(element, function);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict())
      watch_all(entry.value(), function);
  }
}

void tell_of_gradients(const c10::IValue& result, const std::string& function) {
  if (at::GradMode::is_enabled())
    watch_all(result, function);
}

} // namespace graphpatch
