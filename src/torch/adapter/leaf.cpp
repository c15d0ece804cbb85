// Applies one target to one leaf, a tensor or a plain value, and decides whether it is changed in place or on a copy.
#include "cell.h"
#include "device.h"
#include "distributed.h"
#include "gradients.h"
#include "mirror.h"
#include "write.h"

#include <ATen/core/grad_mode.h>

#include <optional>

namespace graphpatch {

// While it lives, operations run outside of all functorch transforms, so that a tensor that no transform has wrapped (a weight
// inside `grad`, say) can be copied and written.
class OutsideTransforms {
public:
  explicit OutsideTransforms(const at::Tensor& tensor) {
    constexpr auto kFront = c10::DispatchKey::FuncTorchDynamicLayerFrontMode;
    if (c10::impl::tls_is_dispatch_key_included(kFront) && is_plain(tensor)) {
      front_.emplace(kFront);
      back_.emplace(c10::DispatchKey::FuncTorchDynamicLayerBackMode);
    }
  }

private:
  std::optional<c10::impl::ExcludeDispatchKeyGuard> front_, back_;
};

// Shows the tensor to a function of the host's, whose result takes its place. `sole`: nobody else sees the tensor's memory.
static uint32_t patch_by_function(const GpTarget& target, at::Tensor& tensor, bool sole, Ownership how) {
  const at::Tensor before = tensor;
  uint32_t answer = show_to_function(target, tensor, how == Ownership::InPlace);
  const bool changed = !tensor.is_same(before);
  if (changed && tensor.defined())
    patched_without_history(target, tensor);
  if (!sole && how != Ownership::InPlace && changed && is_memory(before) && is_memory(tensor) && is_alike(tensor, before)) {
    const std::string why = reason([&] {
      // The function may have returned a tensor of the user's, which must not change together with the original.
      if (!target.slice_len)
        tensor = copy_of(before, tensor);
      mirror(before, tensor);
    });
    if (!why.empty()) {
      tensor = before;
      answer = elsewhere(target, why, &tensor);
    }
  }
  // The unboxed caller of an in-place operator returns its own argument, whatever value we leave here.
  if (how == Ownership::InPlace && changed) {
    before.copy_(tensor);
    tensor = before;
  }
  return answer;
}

// Applies the target to this rank's part of a value.
static uint32_t patch_part(const GpTarget& target, const Part& part, at::Tensor& tensor, Ownership how) {
  flush_device();
  const std::string why = reason([&] {
    at::Tensor made = written_in_parts(part, tensor, target, at::GradMode::is_enabled());
    if (how == Ownership::InPlace) // the caller returns its own argument, whatever value we leave here
      tensor.copy_(made);
    else
      tensor = std::move(made);
  });
  return elsewhere(target, why, &tensor);
}

// Writes the target into the tensor itself. Autograd may have saved this memory: a new version number lets it report the
// change.
static uint32_t write_in_place(const GpTarget& target, at::Tensor& tensor, bool differentiable, Ownership how) {
  const uint32_t answer = write(target, tensor, differentiable);
  if (how == Ownership::InPlace && answer == GP_APPLIED && !differentiable && !tensor.is_inference())
    tensor.unsafeGetTensorImpl()->bump_version();
  return answer;
}

// Puts a patched copy in the tensor's place. If the patch changed no element, the tensor itself is kept: models ask whether two
// values are one (`key is value`), and the copy of a tensor that overlaps itself has other strides.
static uint32_t write_on_copy(const GpTarget& target, at::Tensor& tensor, bool differentiable, bool sole, Ownership how) {
  at::Tensor copy;
  flush_device();
  const std::string why = reason([&] { copy = copy_of(tensor); });
  const uint32_t answer = copy.defined() ? write(target, copy, differentiable) : elsewhere(target, why, &tensor);
  const bool unchanged = answer == GP_APPLIED && !differentiable && how != Ownership::Parameter && is_plain(tensor) &&
                         tensor.device().is_cpu() && same_bits(copy, tensor);
  if (answer == GP_APPLIED && !unchanged) {
    if (!sole)
      mirror(tensor, copy);
    tensor = std::move(copy);
  }
  return answer;
}

static uint32_t patched_tensor(const GpTarget& target, at::Tensor& tensor, bool shared, Ownership how) {
  if (target.action != GP_CUSTOM_TORCH && loses_gradient(tensor))
    return elsewhere(target, kLosesGradient, &tensor);
  // Whether nobody else sees the tensor's memory.
  const bool sole = (how == Ownership::Result || how == Ownership::Owned) && !shared && is_memory(tensor) &&
                    only_ours(tensor, how == Ownership::Owned ? 2 : 1);
  if (target.action == GP_CUSTOM_TORCH)
    return patch_by_function(target, tensor, sole, how);
  if (!tensor.defined())
    return elsewhere(target, "there is no tensor here in this run", nullptr);
  uint32_t answer;
  if (const Part part = part_of(tensor); part.known) {
    answer = patch_part(target, part, tensor, how);
  } else {
    const OutsideTransforms outside(tensor);
    const bool gradient =
        target.tensor && target.tensor->foreign && static_cast<const at::Tensor*>(target.tensor->foreign)->requires_grad();
    const bool differentiable = at::GradMode::is_enabled() && (tensor.requires_grad() || gradient);
    // Python's factories (torch.full) call their operator below autograd, and drop the history of its result afterwards.
    if (gradient && differentiable && c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradFunctionality))
      return elsewhere(target, "no gradient can reach the patch's value here, below autograd: detach it", &tensor);
    const bool in_place = how == Ownership::InPlace || (sole && !differentiable && is_plain(tensor));
    answer = in_place ? write_in_place(target, tensor, differentiable, how)
                      : write_on_copy(target, tensor, differentiable, sole, how);
  }
  if (answer == GP_APPLIED)
    patched_without_history(target, tensor);
  return answer;
}

static void patch_tensor(const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  // Out of the slot, so that a tensor that nobody else holds can be written in place.
  at::Tensor tensor = std::move(slot).toTensor();
  slot = c10::IValue();
  uint32_t answer = GP_APPLIED;
  try {
    answer = patched_tensor(target, tensor, shared, how);
  } catch (...) {
    slot = std::move(tensor);
    throw;
  }
  slot = std::move(tensor);
  verdict(answer);
}

static void patch_number(const GpTarget& target, c10::IValue& slot) {
  if (target.action == GP_KEEP && !core->keep_wanted(&target))
    return;
  if (target.action == GP_CUSTOM_TORCH) { // the function sees the number as a tensor without dimensions
    const auto dtype = slot.isBool() ? at::kBool : slot.isInt() ? at::kLong : at::kDouble;
    at::Tensor tensor = at::scalar_tensor(slot.toScalar(), dtype);
    verdict(show_to_function(target, tensor, true));
    if (slot.isBool())
      slot = tensor.item<bool>();
    else if (slot.isInt())
      slot = tensor.item<int64_t>();
    else
      slot = tensor.item<double>();
    return;
  }
  if (target.action == GP_CUSTOM) {
    verdict(elsewhere(target, "a plain number cannot be shown to a function", nullptr));
    return;
  }
  GpScalar number = number_of(slot);
  const uint32_t answer = core->apply_scalar(&target, &number);
  verdict(answer);
  if (answer == GP_APPLIED)
    slot = value_of(number);
}

// Whether the value is a plain number that a patch can change.
static bool is_number(const c10::IValue& value) {
  return value.isBool() || value.isInt() || value.isDouble();
}

std::string container_is_no_leaf(const char* kind, size_t size, const std::string& first) {
  const std::string what = std::string("the value in this run is a ") + kind + "(" + std::to_string(size) + ")";
  return size ? what + ", not one value: choose an element after `|`, as in |" + first : what + ", which is empty";
}

// Why a value is no leaf, with the same reason as a check of the path gives.
static std::string no_leaf(const c10::IValue& value) {
  if (value.isTuple())
    return container_is_no_leaf("tuple", value.toTupleRef().elements().size(), "sub_0");
  if (value.isList())
    return container_is_no_leaf("list", value.toListRef().size(), "sub_0");
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    const auto first = dict.begin();
    const bool any = first != dict.end();
    return container_is_no_leaf("dict", dict.size(), any ? key_text(first->key()).value_or("KEY") : "KEY");
  }
  if (value.isString())
    return "the value in this run is a str, which no patch can keep or change";
  const std::string kind = value.isCapsule() ? "foreign object" : value.tagKind();
  return "the value in this run is a " + kind + ", not a tensor or plain value";
}

// For a value that is None: a function may look at it and return a tensor. No other patch can be applied.
static void patch_none(const GpTarget& target, c10::IValue& slot) {
  if (target.action != GP_CUSTOM_TORCH)
    return verdict(elsewhere(target, "the value in this run is None", nullptr));
  at::Tensor tensor;
  verdict(show_to_function(target, tensor, false));
  if (tensor.defined())
    slot = std::move(tensor);
}

void patch_leaf(const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  if (slot.isTensor() && keep_in_cell(target, slot.toTensor()))
    verdict(elsewhere(target, "", &slot.toTensor()));
  else if (slot.isTensor())
    patch_tensor(target, slot, shared, how);
  else if (target.tensors)
    return; // a pattern means tensors only
  else if (is_number(slot))
    patch_number(target, slot);
  else if (slot.isNone())
    patch_none(target, slot);
  else
    verdict(elsewhere(target, no_leaf(slot), nullptr));
}

void keep_leaf(const GpTarget& target, const c10::IValue& leaf) {
  c10::IValue number = leaf;
  if (leaf.isTensor())
    keep_tensor(target, leaf.toTensor());
  else if (target.tensors)
    return; // a pattern means tensors only
  else if (is_number(leaf))
    patch_number(target, number);
  else if (leaf.isNone()) // there is nothing to keep
    verdict(elsewhere(target, "", nullptr));
  else
    verdict(elsewhere(target, no_leaf(leaf), nullptr));
}

} // namespace graphpatch
