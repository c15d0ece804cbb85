// The place in TorchScript's source where the interpreter is.
#pragma once

#include "adapter.h"

#include <torch/csrc/jit/ir/ir.h>

#include <deque>
#include <memory>
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

// Freezing inlines functions into a graph and then frees them. The graph's nodes still point to them, so that libtorch crashes
// where it is asked for the place that such a node comes from. This lets a node of ours point to functions of the same names
// that stay.
void keep_places(torch::jit::Node* node);
// Whether the graph has nodes that may point to freed functions.
bool may_have_lost_places(const torch::jit::Graph& graph);
// While the result lives, no place is looked up on this thread, since the interpreter runs such a graph of the program's own.
std::shared_ptr<const char> without_places();
// In script.cpp: whether we are told of calls, and so know which graphs the interpreter runs.
bool is_told_of_calls();

// Tells the core the place that the innermost scope is called from.
void give_scope_source();

} // namespace graphpatch
