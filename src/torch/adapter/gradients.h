// Gradients of TorchScript functions that run by our plan, and the notes about them.
#pragma once

#include "adapter.h"

#include <string>

namespace graphpatch {

// The text that both notes contain; docs/limits.md explains it.
constexpr const char* kOtherFormulas =
    "while it is recorded or patched, gradients are computed by autograd's formulas, not by those of TorchScript's optimizer, "
    "and may differ from the program's own in the last bits";

// A function has been called as a root.
void begin_gradients();

// The function is about to return `result`. If a gradient comes back through it, a note says by which formulas it is computed.
void watch_gradients(const c10::IValue& result, const std::string& function);

// Patches that are applied where autograd is off. A torch::autograd::Function of C++ computes its forward there, and gives its
// results a backward of its own, which does not know the patch. Such a gradient is refused.
//
// Notes that such a patch has been applied.
void patched_without_history(const GpTarget& target, const at::Tensor& tensor);
// Whether a value that was patched before is now read where this may matter, and nobody has said so since autograd's last
// node. `noted` has the number of that node.
bool loses_history(uint64_t& noted);
// If such a patch was applied, operations of this scope are intercepted from now on for that purpose alone. watches_scope:
// whether they are.
void watch_rest_of_scope();
bool watches_scope();
// Notes values that an operation has produced.
void came_to_be(const c10::IValue* values, size_t n);
// Called when an operation begins or has ended: refuses gradients of values that came out of such a function.
void refuse_gradients(Held& held);
// Holds a tensor no more that has appeared after a patch.
void forget_history(Held& held, const void* tensor);

} // namespace graphpatch
