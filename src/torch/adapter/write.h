// One target on one tensor: whose memory it is, copying it, writing it, keeping a copy of it.
#pragma once

#include "adapter.h"

namespace graphpatch {

// Throws what the core has to say, if its answer is GP_RAISE.
void verdict(uint32_t answer);
// Tells the core that libtorch did what the target says, or why it could not.
uint32_t elsewhere(const GpTarget& target, const std::string& why, const at::Tensor* tensor);

// A copy that whoever reads it next treats as it would treat the value: the same strides, place in a cache line, conj and
// neg bits, and `requires_grad`. What overlaps itself (`expand`) becomes dense.
at::Tensor copy_of(const at::Tensor& tensor);
// The same with other values.
at::Tensor copy_of(const at::Tensor& tensor, const at::Tensor& values);
// Whether two of its elements may lie at one place.
bool may_overlap(const at::Tensor& tensor);
// Whether two plain tensors of one shape and dtype hold the same bits.
bool same_bits(const at::Tensor& left, const at::Tensor& right);
// Nobody but the slot that we hold (`holders` 2: and the caller, who gives it up) sees the memory: the value may be
// written where it lies.
bool only_ours(const at::Tensor& tensor, size_t holders);
// Nobody but the one reference that is given sees the tensor or its memory.
bool is_forgotten(const at::Tensor& tensor);

// Whether a gradient would be that of the value without the patch.
bool loses_gradient(const at::Tensor& tensor);
extern const char* const kLosesGradient;

// Does what the target says. `differentiable`: through autograd.
uint32_t write(const GpTarget& target, at::Tensor& tensor, bool differentiable);
// Whether two tensors have the same shape and dtype.
bool is_alike(const at::Tensor& one, const at::Tensor& other);
// Calls the user's function with libtorch's own tensor; what it returns takes the tensor's place. `keeps_kind`: it has to be
// of the same shape and dtype.
uint32_t show_to_function(const GpTarget& target, at::Tensor& tensor, bool keeps_kind);
// Shows the core a tensor to keep a copy of.
void keep_tensor(const GpTarget& target, const at::Tensor& tensor);

// Runs `body`; what it throws becomes the reason of a failure.
template <class Body>
std::string reason(Body body) {
  try {
    body();
    return "";
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of an unknown kind";
  }
}

} // namespace graphpatch
