// Gradients through TorchScript functions that run by our plan: what a person should know of them.
#pragma once

#include "adapter.h"

#include <string>

namespace graphpatch {

// What both notes say; docs/limits.md says why.
constexpr const char* kOtherFormulas =
    "while it is recorded or patched, gradients are computed by autograd's formulas, not by those of TorchScript's optimizer, "
    "and may differ from the program's own in the last bits";

// A function has been called as a root.
void begin_gradients();

// It is about to return this. If a gradient comes back through it, a note says what the gradient is.
void tell_of_gradients(const c10::IValue& result, const std::string& function);

// Patches that are applied where autograd is off. A torch::autograd::Function of C++ computes its forward so, and gives what it
// returns a backward of its own, in which such a patch has no part: that gradient is refused.
//
// This one has been applied.
void patched_without_history(const GpTarget& target, const at::Tensor& tensor);
// The operations of this scope are seen for that alone from now on, if such a patch was applied; whether they are.
void watch_rest_of_scope();
bool watches_scope();
// These values came to be, in a place where autograd is on or off.
void came_to_be(const c10::IValue* values, size_t n);
// Something begins, or has ended: looks for values that have come out of such a function.
void refuse_gradients(Held& held);

} // namespace graphpatch
