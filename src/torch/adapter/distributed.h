// Values of which each rank of a program holds a part: torch's DTensor, and the plain tensors that it gives away (`to_local`).
#pragma once

#include "adapter.h"

namespace graphpatch {

// What is known of such a value.
struct Part {
  // The value is a DTensor, or a plain tensor that is this rank's part of one.
  bool known = false;
  // For a plain tensor: a DTensor of the same placements and global shape. Undefined if only the origin is known, and not how
  // the tensor lies in the whole value.
  at::Tensor like;
  bool is_distributed = false; // it is a DTensor
};

Part part_of(const at::Tensor& tensor);
// The same for a person to read, as a text that is never freed; NULL for other tensors.
const char* part_layout(const at::Tensor& tensor);

// Applies a target, which is no function, to the global value: every rank changes what lies in its part, without communication.
// Throws if it cannot.
at::Tensor written_in_parts(const Part& part, const at::Tensor& tensor, const GpTarget& target, bool differentiable);
// What a function of Python's is shown for the value: a DTensor, or with `gathered` a plain tensor of the global shape.
at::Tensor shown_whole(const Part& part, const at::Tensor& tensor, bool gathered);
// This rank's part of what the function returned, in the kind of `tensor`.
at::Tensor taken_apart(const Part& part, const at::Tensor& tensor, const at::Tensor& made);

// The plain tensor that this rank holds of the value.
at::Tensor local_part(const Part& part, const at::Tensor& tensor);

// Follows the parts of DTensors through an operation: a result of the shape of an operand that is such a part lies in the
// whole value as that does.
class Parts {
public:
  Parts(const c10::OperatorHandle& op, const c10::IValue* arguments, size_t n);
  void follow(const c10::IValue* results, size_t n) const;

private:
  struct Operand {
    std::vector<int64_t> sizes;
    at::Tensor like;
  };
  bool keeps_place_ = false; // each element of the result is computed from the same element of the operands
  std::vector<Operand> operands_;
};

// Whether any tensor of this thread's run is known as a part.
bool has_parts();
void register_parts();

} // namespace graphpatch
