// Mirrors: a patched copy stands for memory that others see, too. So a write into either of the two is repeated in the other.
#pragma once

#include "operation.h"

#include <c10/util/SmallVector.h>

namespace graphpatch {

// Notes that `copy` has taken the place of `original` in the run of this thread. Until the run ends, or nobody sees the copy
// any more, all operations of the thread come through the fallback.
void mirror(const at::Tensor& original, const at::Tensor& copy);

// Whether the tensor has memory in which its elements can be found by strides.
bool is_memory(const at::Tensor& tensor);

// The tensors that an operation is about to write. When it has returned, `reflect` repeats the write in their mirrors.
class Writes {
public:
  // `stores` means that the operation changes elements of the tensors that its schema says it writes.
  Writes(const OpInfo& info, const c10::IValue* arguments, bool stores);
  ~Writes();
  void reflect();

private:
  struct Reach;
  std::unique_ptr<Reach> reached_;
  c10::SmallVector<at::Tensor, 2> written_;
};

} // namespace graphpatch
