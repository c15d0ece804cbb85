// One target on one tensor: who shares its memory, how it is copied and written, and how a copy of it is kept.
#pragma once

#include "distributed.h"

namespace graphpatch {

// Throws the core's failure() if the answer is GP_RAISE.
void verdict(uint32_t answer);
// Tells the core that libtorch has applied the target or, if `why` is not empty, why it could not.
uint32_t elsewhere(const GpTarget& target, const std::string& why, const at::Tensor* tensor);

// ---- copy.cpp ----

// A copy that code which reads it treats like the value: it has the same strides, place in a cache line, conj and neg bits, and
// `requires_grad`. The copy of a tensor that overlaps itself (`expand`) is dense.
at::Tensor copy_of(const at::Tensor& tensor);
// The same with other values.
at::Tensor copy_of(const at::Tensor& tensor, const at::Tensor& values);
// Whether two elements of the tensor may lie at the same place.
bool may_overlap(const at::Tensor& tensor);
// Whether two plain tensors of one shape and dtype hold the same bits.
bool same_bits(const at::Tensor& left, const at::Tensor& right);
// Whether only our slot sees the memory (with `holders` 2: our slot, and the caller, who gives the tensor up), so that the
// value may be written in place.
bool only_ours(const at::Tensor& tensor, size_t holders);
// Whether only the given reference sees the tensor or its memory.
bool is_forgotten(const at::Tensor& tensor);

// Whether Python has an object of the tensor's.
bool is_known_to_python(const at::Tensor& tensor);

// ---- write.cpp ----

// Whether a gradient would be computed as if the patch had not been applied.
bool loses_gradient(const at::Tensor& tensor);
extern const char* const kLosesGradient;

// Sets the elements of `mask` that the target's slice means.
void mark(const GpTarget& target, at::Tensor& mask);
// What the target writes, or adds, into a value of these sizes: a tensor without dimensions, or one of the sizes.
at::Tensor values_for(const GpTarget& target, at::IntArrayRef sizes, const at::TensorOptions& options, bool differentiable);
// Applies the target. With `differentiable`, through autograd.
uint32_t write(const GpTarget& target, at::Tensor& tensor, bool differentiable);
// Whether two tensors have the same shape and dtype.
bool is_alike(const at::Tensor& one, const at::Tensor& other);
// Calls the user's function with libtorch's own tensor. The tensor that it returns takes the tensor's place. With `keeps_kind`,
// it must have the same shape and dtype.
uint32_t show_to_function(const GpTarget& target, at::Tensor& tensor, bool keeps_kind);
// A patch has put another tensor in the place of one that Python knows: gives it an object of the same class.
void keep_class(const at::Tensor& before, at::Tensor& after);
void keep_classes_by(TorchCallback callback);
// Shows the core a tensor to keep a copy of.
void keep_tensor(const GpTarget& target, const at::Tensor& tensor);

// ---- leaf.cpp ----

// Applies the target to a leaf, a tensor or a plain value. `shared`: others hold a container that the leaf stands in.
void patch_leaf(const GpTarget& target, c10::IValue& slot, bool shared, Ownership how);
// Keeps a copy of a leaf for the target. Changes nothing.
void keep_leaf(const GpTarget& target, const c10::IValue& leaf);
// Says that a container is no leaf, as a check of the path does; `first` is the name of its first element.
std::string container_is_no_leaf(const char* kind, size_t size, const std::string& first);

// Runs `body`. Returns the text of an exception, as the reason of a failure.
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
