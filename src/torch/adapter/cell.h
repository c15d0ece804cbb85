// Cells: where the last value of a probe waits until the program asks for it. No code of the user's runs when a value comes by.
#pragma once

#include "adapter.h"

namespace graphpatch {

// Whether the target is a cell, and has taken a copy of the tensor. If not, the target's function is to be called.
bool keep_in_cell(const GpTarget& target, const at::Tensor& tensor);

void register_cells();

} // namespace graphpatch
