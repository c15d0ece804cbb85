// Lists and dicts of TorchScript that patches have replaced by copies.
#pragma once

#include "adapter.h"

namespace graphpatch {

// A list or dict that others hold, and the copy of it with a patched element that a scope got instead.
struct CopiedContainer {
  uint32_t frame; // the scope that got the copy
  c10::IValue original;
  c10::IValue copy;
  // The elements of both when they were last settled, those of a dict as keys and values in turn.
  std::vector<c10::IValue> held;
  std::vector<c10::IValue> given;
};

// Whether somebody else holds the value, or a list or dict in it.
bool is_shared_container(const c10::IValue& value);

// The scope with this number got `after` instead of `before`: notes the lists and dicts that differ.
void note_copies(uint32_t frame, const c10::IValue& before, const c10::IValue& after);

// What was put into one of the two since the last time, or taken out, is put into or taken out of the other one.
void settle_containers();
// The same when a scope ends: the copies that it got belong to the one around it (`outer`) now, if that holds them.
void leave_containers(uint32_t frame, uint32_t outer);
// The same when the run ends, which forgets them all.
void settle_all_containers(Held& held);

} // namespace graphpatch
