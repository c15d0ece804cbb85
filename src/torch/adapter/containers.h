// Lists and dicts of TorchScript that patches have replaced by copies.
#pragma once

#include "adapter.h"

namespace graphpatch {

// A list or dict that others hold, and the copy of it with a patched element that a scope got instead.
struct CopiedContainer {
  uint32_t frame; // the scope that got the copy
  c10::IValue original;
  c10::IValue copy;
  // The elements of both when the copy was made, those of a dict as keys and values in turn.
  std::vector<c10::IValue> held;
  std::vector<c10::IValue> given;
};

// Whether somebody else holds the value, or a list or dict in it.
bool is_shared_container(const c10::IValue& value);

// The scope with this number got `after` instead of `before`: notes the lists and dicts that differ.
void note_copies(uint32_t frame, const c10::IValue& before, const c10::IValue& after);

// The scope ends, and `outer` is the one around it: what it has put into copied lists and dicts, or taken out of them, is put
// into or taken out of the originals, too.
void settle_containers(Held& held, uint32_t frame, uint32_t outer);
void settle_all_containers(Held& held);

} // namespace graphpatch
