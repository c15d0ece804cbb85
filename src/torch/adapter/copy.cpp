// Copies of tensors, and who shares the memory of a tensor: together they decide whether a value may be written in place.
#include "names.h"
#include "write.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace graphpatch {

// Whether two elements may lie at the same place. libtorch's own test gives no answer for tensors that are not dense.
bool may_overlap(const at::Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> steps; // stride and size, of dimensions that have more than one element
  for (int64_t d = 0; d < tensor.dim(); ++d)
    if (tensor.size(d) > 1)
      steps.emplace_back(tensor.stride(d), tensor.size(d));
  std::sort(steps.begin(), steps.end());
  int64_t reach = 1; // distance that all dimensions with smaller strides reach together
  for (const auto& [stride, size] : steps) {
    if (stride < reach)
      return true;
    reach += (size - 1) * stride;
  }
  return false;
}

bool same_bits(const at::Tensor& left, const at::Tensor& right) {
  if (left.is_non_overlapping_and_dense() && left.strides() == right.strides())
    return !left.numel() || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
  const auto bits = [](const at::Tensor& tensor) {
    const at::Tensor plain = tensor.is_complex() ? at::view_as_real(tensor) : tensor;
    switch (plain.element_size()) {
      case 1:
        return plain.view(at::kByte);
      case 2:
        return plain.view(at::kShort);
      case 4:
        return plain.view(at::kInt);
      default:
        return plain.view(at::kLong);
    }
  };
  at::NoGradGuard none;
  NoNamesGuard unnamed; // a tensor with names cannot be seen as one of another dtype
  return at::equal(bits(left), bits(right));
}

// How far apart the first and the last element of a tensor without overlap lie, in elements.
static int64_t span_of(const at::Tensor& tensor) {
  int64_t span = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d)
    span += (tensor.size(d) - 1) * tensor.stride(d);
  return span;
}

// Memory that kernels treat like the tensor's own. They choose their path, and with it the last bits of their result, by
// strides and by the position of the first element in its cache line.
static at::Tensor empty_like_in_memory(const at::Tensor& tensor) {
  constexpr uintptr_t kLine = 64;
  const auto size = static_cast<int64_t>(tensor.element_size());
  const auto place = static_cast<int64_t>(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kLine);
  const int64_t lead = place / size;
  const at::Tensor memory = at::empty({lead + span_of(tensor)}, tensor.options());
  at::Tensor copy = at::empty({0}, tensor.options());
  c10::TensorImpl* impl = copy.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(memory.storage());
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), lead);
  return copy;
}

// Whether libtorch only stores this dtype, as those of fewer than eight bits, so that its copies are made byte by byte.
static bool is_stored_only(const at::Tensor& tensor) {
  return dtype_code(tensor.scalar_type()) == GP_DTYPE_OTHER && !tensor.is_quantized() && tensor.element_size() == 1;
}

at::Tensor copy_of(const at::Tensor& tensor) {
  return copy_of(tensor, tensor);
}

at::Tensor copy_of(const at::Tensor& tensor, const at::Tensor& values) {
  // The copy keeps these bits: whoever reads it resolves them or not, as for the tensor itself.
  if (tensor.layout() == c10::kStrided && tensor.is_conj())
    return copy_of(tensor.conj(), values.conj()).conj();
  if (tensor.layout() == c10::kStrided && tensor.is_neg())
    return at::_neg_view(copy_of(at::_neg_view(tensor), at::_neg_view(values)));
  const bool strided = is_plain(tensor) && tensor.numel() != 0 && !may_overlap(tensor);
  // In inference mode, the copy of a tensor from outside has to be such a tensor, too, since it could not require grad
  // otherwise.
  std::optional<c10::InferenceMode> outside;
  std::optional<at::NoGradGuard> without_history;
  if (c10::InferenceMode::is_enabled() && !tensor.is_inference()) {
    outside.emplace(false);
    without_history.emplace();
  }
  at::Tensor copy;
  if (!strided) {
    copy = values.clone();
  } else if (copy = empty_like_in_memory(tensor); is_stored_only(tensor)) {
    copy.view(at::kByte).copy_(values.view(at::kByte));
  } else {
    copy.copy_(values);
  }
  // `linear` and `matmul` look at requires_grad even if no gradient is wanted.
  if (!at::GradMode::is_enabled() && tensor.requires_grad() && !copy.is_inference())
    copy.set_requires_grad(true);
  return copy;
}

// From 2.10 on a tensor and its Python object hold each other. Of a tensor that Python has forgotten, only the tensor itself
// holds the object.
template <class Slot>
static auto python_forgot(const Slot& slot, int) -> decltype(slot.has_unique_reference()) {
  return slot.has_unique_reference();
}
template <class Slot>
static bool python_forgot(const Slot& /*slot*/, long) {
  return false;
}

// 2.10 and later have the first of these members, older libtorch the second.
template <class Slot>
static auto has_object(const Slot& slot, int) -> decltype(slot.load_pyobj() != nullptr) {
  return slot.load_pyobj() != nullptr;
}
template <class Slot>
static auto has_object(const Slot& slot, long) -> decltype(slot._unchecked_untagged_pyobj() != nullptr) {
  return slot._unchecked_untagged_pyobj() != nullptr;
}

bool is_known_to_python(const at::Tensor& tensor) {
  return has_object(*tensor.unsafeGetTensorImpl()->pyobj_slot(), 0);
}

static bool has_one_holder(const at::TensorBase& tensor) {
  const size_t holders = tensor.use_count();
  return holders == 1 || (holders == 2 && python_forgot(*tensor.unsafeGetTensorImpl()->pyobj_slot(), 0));
}

// Whether only this tensor uses its memory. For a view, autograd keeps the tensor that it was made of, which nobody else may
// hold. Memory that libtorch did not allocate (from_blob, shared, mapped) may have readers that no count shows.
static bool has_own_memory(const at::Tensor& tensor) {
  if (!tensor.has_storage() || tensor.storage().allocator() == nullptr || !tensor.storage().resizable())
    return false;
  const size_t holders = tensor.storage().use_count();
  return holders == 1 || (holders == 2 && tensor.is_view() && has_one_holder(tensor._base()));
}

bool only_ours(const at::Tensor& tensor, size_t holders) {
  return tensor.use_count() == holders && has_own_memory(tensor) && !may_overlap(tensor);
}

bool is_forgotten(const at::Tensor& tensor) {
  return has_one_holder(tensor) && has_own_memory(tensor);
}

} // namespace graphpatch
