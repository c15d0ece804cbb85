// Mirrors: a patched copy stands for memory that others see, too. What is written into the one is written into the other.
#pragma once

#include "adapter.h"

#include <c10/util/SmallVector.h>

namespace graphpatch {

// `copy` has taken the place of `original` in the run of this thread. Until the run ends, or nobody sees the copy any more, all
// operations of the thread come through the fallback.
void mirror(const at::Tensor& original, const at::Tensor& copy);

// Whether a tensor is memory of which elements can be found by strides.
bool is_memory(const at::Tensor& tensor);

// Whether this thread has such copies.
bool has_mirrors();

// The tensors that an operation is about to write; those that have mirrors are written there, too, when it has returned.
class Writes {
public:
  // `stores`: it writes elements where its schema says that it writes.
  Writes(const OpInfo& info, const c10::IValue* arguments, bool stores);
  ~Writes();
  void reflect();

private:
  struct Reach;
  std::unique_ptr<Reach> reached_;
  c10::SmallVector<at::Tensor, 2> written_;
};

} // namespace graphpatch
