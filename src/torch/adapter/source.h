// The place in TorchScript's source where the interpreter is.
#pragma once

#include "adapter.h"

#include <deque>
#include <string>
#include <vector>

namespace graphpatch {

// The user's frames of this thread's interpreter, innermost last; none outside of it. Owns their texts.
class Frames {
public:
  void find();
  const GpFrame* data() const {
    return frames_.data();
  }
  size_t size() const {
    return frames_.size();
  }

private:
  void add(const std::string& file, uint32_t line, const std::string& function, const std::string& text);
  bool add_traced(const std::string& stack);
  std::vector<GpFrame> frames_;
  std::deque<std::string> held_;
};

// Tells the core the place that the innermost scope is called from.
void give_scope_source();

} // namespace graphpatch
