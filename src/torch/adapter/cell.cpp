#include "cell.h"
#include "distributed.h"
#include "names.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/jit/runtime/custom_operator.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

namespace graphpatch {

// Whether a clone of the value would have the memory layout of the copy, and copying would use no other thread.
static bool fits(const at::Tensor& copy, const at::Tensor& value) {
  constexpr size_t kSerial = 1 << 17; // libtorch copies more than this on several threads, if it may
  return copy.is_cpu() && value.is_cpu() && copy.scalar_type() == value.scalar_type() && copy.sizes() == value.sizes() &&
         copy.strides() == value.strides() && value.is_non_overlapping_and_dense() && !has_names(value) &&
         copy.is_inference() == c10::InferenceMode::is_enabled() && (value.nbytes() <= kSerial || at::get_num_threads() == 1);
}

// Most parameters have not changed since the last run, so equal pieces are only read and not written.
static void write_differences(char* to, const char* from, size_t bytes) {
  constexpr size_t kPiece = 1 << 14; // stays in the innermost cache
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t size = std::min(kPiece, bytes - at);
    if (std::memcmp(to + at, from + at, size) != 0)
      std::memcpy(to + at, from + at, size);
  }
}

struct Cell {
  TorchCallback function; // called for tensors that the cell does not keep
  void* user;
  std::mutex mutex;
  at::Tensor value;

  at::Tensor exchange(at::Tensor other) {
    const Lock lock(mutex);
    return std::exchange(value, std::move(other));
  }

  // If nobody has asked for the copy, only the cell has it, so it is overwritten. Returns false if it does not fit, or there is
  // none.
  bool overwrite(const at::Tensor& other) {
    const Lock lock(mutex); // a reader that comes meanwhile waits for the whole value
    if (!value.defined() || value.use_count() != 1 || value.storage().use_count() != 1 || !fits(value, other))
      return false;
    write_differences(static_cast<char*>(value.mutable_data_ptr()), static_cast<const char*>(other.const_data_ptr()),
                      other.nbytes());
    return true;
  }
};

// This is a gp_torch_callback.
static int call_function(void* user, const void* tensor, const void** replacement) {
  const auto& cell = *static_cast<const Cell*>(user);
  return cell.function(cell.user, tensor, replacement);
}

// Whether a mode or transform of libtorch would see, or change, what is done to a tensor.
static bool is_observed() {
  return c10::impl::TorchDispatchModeTLS::stack_len() != 0 ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer);
}

bool keep_in_cell(const GpTarget& target, const at::Tensor& tensor) {
  if (target.action != GP_CUSTOM_TORCH || target.callback != reinterpret_cast<void*>(&call_function) || target.slice_len ||
      !tensor.defined() || !is_plain(tensor) || is_observed() || part_of(tensor).known)
    return false;
  auto& cell = *static_cast<Cell*>(target.user);
  try {
    const at::AutoDispatchBelowADInplaceOrView without_history;
    if (!cell.overwrite(tensor))
      cell.exchange(tensor.clone());
  } catch (const std::exception&) { // the function is called instead, and reports the error or handles the tensor
    return false;
  }
  return true;
}

template <class T>
static T* pointer(int64_t address) {
  return reinterpret_cast<T*>(address);
}

void register_cells() {
  using torch::jit::Operator;
  using torch::jit::Stack;
  const auto alias = c10::AliasAnalysisKind::CONSERVATIVE;
  static auto* operators = new torch::jit::RegisterOperators({
      // Makes a cell, which belongs to the caller. `function` is a gp_torch_callback; it is called with `user` if a tensor is
      // not kept.
      Operator(
          "graphpatch::cell(int function, int user) -> int",
          [](Stack& stack) {
            void* const user = pointer<void>(torch::jit::pop(stack).toInt());
            const auto function = reinterpret_cast<TorchCallback>(torch::jit::pop(stack).toInt());
            stack.emplace_back(reinterpret_cast<int64_t>(new Cell{function, user, {}, {}}));
          },
          alias),
      // The function to give to gp_spec_custom_torch together with a cell.
      Operator(
          "graphpatch::cell_function() -> int",
          [](Stack& stack) { stack.emplace_back(reinterpret_cast<int64_t>(&call_function)); }, alias),
      // The last value that came since this was called before, if any.
      Operator(
          "graphpatch::cell_take(int cell) -> Tensor?",
          [](Stack& stack) {
            at::Tensor value = pointer<Cell>(torch::jit::pop(stack).toInt())->exchange({});
            stack.emplace_back(value.defined() ? c10::IValue(std::move(value)) : c10::IValue());
          },
          alias),
      Operator(
          "graphpatch::cell_free(int cell) -> ()", [](Stack& stack) { delete pointer<Cell>(torch::jit::pop(stack).toInt()); },
          alias),
  });
  (void)operators;
}

} // namespace graphpatch
