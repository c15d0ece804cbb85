// The place in TorchScript's source where the interpreter is. An archive keeps, for each piece of its code, the Python source
// that it was made from: the lines of scripted code, and for traced code the Python stack at the time of tracing.
#include "source.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/runtime/interpreter.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <sstream>

namespace graphpatch {

using torch::jit::SourceRange;

// Whether the file belongs to libtorch's own layers, wherever they were on the machine that made the archive.
static bool is_libtorchs(const std::string& file) {
  return file.find("/torch/nn/") != std::string::npos || file.find("/torch/_") != std::string::npos ||
         file.find("/torch/jit/") != std::string::npos || file.find("-packages/torch/") != std::string::npos ||
         file.find("code/__torch__/torch/nn/") != std::string::npos;
}

void Frames::add(const std::string& file, uint32_t line, const std::string& function, const std::string& text) {
  const auto hold = [this](const std::string& held) {
    held_.push_back(held);
    return gp_str(held_.back());
  };
  frames_.push_back({hold(file), hold(function), hold(text), line});
}

// Reads `FILE(LINE): FUNCTION`, one a line, innermost first. Frames outside of torch.jit.trace belong to the exporting program.
bool Frames::add_traced(const std::string& stack) {
  struct Line {
    std::string file, function;
    uint32_t number;
  };
  std::vector<Line> lines;
  std::istringstream text(stack);
  for (std::string line; std::getline(text, line);) {
    const size_t close = line.rfind("): ");
    const size_t open = close == std::string::npos ? close : line.rfind('(', close);
    if (open == std::string::npos || open + 1 == close || line.find_first_not_of("0123456789", open + 1) != close ||
        close - open > 10)
      return false;
    const std::string file = line.substr(0, open);
    if (file.find("/torch/jit/_trace.py") != std::string::npos)
      break;
    lines.push_back({file, line.substr(close + 3), static_cast<uint32_t>(std::stoul(line.substr(open + 1)))});
  }
  if (lines.empty())
    return false;
  for (auto line = lines.rbegin(); line != lines.rend(); ++line)
    if (!is_libtorchs(line->file))
      add(line->file, line->number, line->function, "");
  return true;
}

// Calls of the program's own plans that are running on this thread, and whose places cannot be looked up.
static std::vector<std::weak_ptr<const char>>& calls_without_places() {
  static thread_local std::vector<std::weak_ptr<const char>> calls;
  return calls;
}

std::shared_ptr<const char> without_places() {
  auto call = std::make_shared<const char>();
  calls_without_places().push_back(call);
  return call;
}

void Frames::find() {
  auto& calls = calls_without_places();
  calls.erase(std::remove_if(calls.begin(), calls.end(), [](const auto& call) { return call.expired(); }), calls.end());
  if (!calls.empty() || !is_told_of_calls())
    return;
  const ForksWait forks_wait; // libtorch reads a file's source lines when it is first asked for one
  const auto stack = torch::jit::currentCallstack(); // innermost first
  for (size_t i = stack.size(); i-- > 0;) {
    const torch::jit::StackEntry& entry = stack[i];
    // Calls in traced code have an empty source range.
    const auto original = entry.range.findSourceRangeThatGenerated();
    const SourceRange& range = original && original->size() ? *original : entry.range;
    if (!range.source()) // our markers have no source
      continue;
    if (i == 0 && range.source()->get_line(0).str().find("): ") != std::string::npos) {
      // The stack at the time of tracing includes everything that the calls around it could say.
      const auto calls = std::move(frames_);
      frames_.clear();
      if (add_traced(range.source()->text_str().str()))
        continue;
      frames_ = calls;
    }
    const auto place = range.file_line_col();
    if (!place || is_libtorchs(std::get<0>(*place)))
      continue;
    const size_t line = range.source()->lineno_for_offset(range.start());
    add(std::get<0>(*place), static_cast<uint32_t>(std::get<1>(*place)), entry.filename, range.source()->get_line(line).str());
  }
}

// A function of this name that is never freed. It is not called.
static torch::jit::Function* lasting_function(const std::string& name) {
  static std::mutex mutex;
  static NeverDestroyed<std::map<std::string, std::unique_ptr<torch::jit::GraphFunction>>> functions;
  const Lock lock(mutex);
  auto& function = functions.value[name];
  if (!function)
    function = std::make_unique<torch::jit::GraphFunction>(c10::QualifiedName(name.empty() ? "?" : name),
                                                           std::make_shared<torch::jit::Graph>(), nullptr);
  return function.get();
}

void keep_places(torch::jit::Node* node) {
  using torch::jit::InlinedCallStack;
  if (!node->callstack())
    return;
  std::vector<torch::jit::InlinedCallStackPtr> calls; // outermost first
  for (auto call = node->callstack(); call; call = (*call)->callee())
    calls.push_back(*call);
  torch::jit::InlinedCallStackPtr kept;
  for (auto call = calls.rbegin(); call != calls.rend(); ++call) {
    torch::jit::Function* function = lasting_function((*call)->function_name());
    const auto module = (*call)->module_instance();
    kept = kept ? c10::make_intrusive<InlinedCallStack>(kept, function, (*call)->source_range(), module)
                : c10::make_intrusive<InlinedCallStack>(function, (*call)->source_range(), module);
  }
  node->setCallStack(kept);
}

static bool was_inlined(const torch::jit::Node* node);

static bool has_inlined(const torch::jit::Block& block) {
  const auto nodes = block.nodes();
  return std::any_of(nodes.begin(), nodes.end(), was_inlined);
}

// The node, or one in its blocks.
static bool was_inlined(const torch::jit::Node* node) {
  const auto blocks = node->blocks();
  return node->callstack() ||
         std::any_of(blocks.begin(), blocks.end(), [](const torch::jit::Block* block) { return has_inlined(*block); });
}

bool may_have_lost_places(const torch::jit::Graph& graph) {
  return has_inlined(*graph.block());
}

void give_scope_source() {
  Frames frames;
  frames.find();
  core->scope_source(frames.data(), frames.size());
}

} // namespace graphpatch
