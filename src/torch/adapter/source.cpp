// The place in TorchScript's source where the interpreter is. An archive keeps, for each piece of its code, the Python source
// that it was made from: the lines of scripted code, and for traced code the Python stack at the time of tracing.
#include "source.h"

#include <torch/csrc/jit/runtime/interpreter.h>

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

void Frames::find() {
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

void give_scope_source() {
  Frames frames;
  frames.find();
  core->scope_source(frames.data(), frames.size());
}

} // namespace graphpatch
