// Cells: the place where a probe's last value waits until the program asks for it. When a value comes, no code of the user's
// runs.
#pragma once

#include "adapter.h"

namespace graphpatch {

// Returns true if the target is a cell that has taken a copy of the tensor. If not, the target's function has to be called.
bool keep_in_cell(const GpTarget& target, const at::Tensor& tensor);

void register_cells();

} // namespace graphpatch
