// What a value was made from and where, for people: an operation's arguments with their keywords, and the lines of
// TorchScript source behind it. Asked for only where a run does something that was not recorded before.
#include "adapter.h"

#include <torch/csrc/jit/runtime/interpreter.h>

#include <deque>

namespace graphpatch {

// Enumerations cross TorchScript as plain numbers; the schema still knows.
static bool name_of_enumeration(const c10::Argument& argument, const c10::IValue& value, std::string& out) {
  if (!value.isInt())
    return false;
  c10::TypePtr type = argument.real_type();
  if (auto optional = type->cast<c10::OptionalType>())
    type = optional->getElementType();
  switch (type->kind()) {
    case c10::TypeKind::ScalarTypeType: {
      out = std::string("torch.") + dtype_name(static_cast<c10::ScalarType>(value.toInt()));
      return true;
    }
    case c10::TypeKind::LayoutType:
      out = c10::str("torch.", value.toLayout() == c10::kStrided ? "strided" : c10::str(value.toLayout()));
      return true;
    case c10::TypeKind::MemoryFormatType: {
      static const char* const kNames[] = {"contiguous", "preserve", "channels_last", "channels_last_3d"};
      const int64_t format = value.toInt();
      if (format < 0 || format > 3)
        return false;
      out = std::string("torch.") + kNames[format] + "_format";
      return true;
    }
    default:
      return false;
  }
}

static bool is_default(const c10::Argument& argument, const c10::IValue& value) {
  if (!argument.default_value() || value.isTensor() || value.isTensorList())
    return false;
  const c10::IValue& expected = *argument.default_value();
  if (value.isNone() || expected.isNone())
    return value.isNone() && expected.isNone();
  return value.tagKind() == expected.tagKind() && value == expected;
}

// Texts that items borrow while the core reads them.
static thread_local std::deque<std::string> texts;

void Items::add_argument(const c10::Argument& argument, const c10::IValue& value, bool by_keyword) {
  const size_t at = items_.size();
  std::string name;
  // `x + 1` passes the 1 as a tensor.
  if (value.isTensor() && value.toTensor().defined() && value.toTensor().unsafeGetTensorImpl()->is_wrapped_number()) {
    const c10::Scalar number = value.toTensor().item();
    add(number.isBoolean() ? c10::IValue(number.toBool()) : c10::IValue(number));
  } else if (value.isDevice()) {
    name = "torch.device('" + value.toDevice().str() + "')";
  } else {
    name_of_enumeration(argument, value, name);
  }
  if (name.empty() && items_.size() == at) {
    add(value);
  } else if (!name.empty()) {
    texts.push_back(std::move(name));
    GpItem item{};
    item.tag = GP_OTHER;
    item.text = gp_str(texts.back());
    items_.push_back(item);
  }
  if (by_keyword)
    items_[at].key = gp_str(argument.name());
}

// libtorch's own layers, wherever they lay on the machine that made the archive.
static bool is_libtorchs(const std::string& file) {
  return file.find("/torch/nn/") != std::string::npos || file.find("/torch/_") != std::string::npos ||
      file.find("-packages/torch/") != std::string::npos;
}

void give_args(GpRun* run, const Items& items) {
  std::vector<GpFrame> frames;
  std::deque<std::string> held;
  const auto stack = torch::jit::currentCallstack(); // innermost first
  for (auto entered = stack.rbegin(); entered != stack.rend(); ++entered) {
    const torch::jit::StackEntry& entry = *entered;
    // The archive's code carries the lines of the Python source that it was made from.
    const auto original = entry.range.findSourceRangeThatGenerated();
    const auto& range = original ? *original : entry.range;
    GpFrame frame{};
    const auto& source = range.source();
    if (auto place = range.file_line_col()) {
      if (is_libtorchs(std::get<0>(*place)))
        continue;
      held.push_back(std::get<0>(*place));
      frame.file = gp_str(held.back());
      frame.line = static_cast<uint32_t>(std::get<1>(*place));
    }
    held.push_back(entry.filename);
    frame.function = gp_str(held.back());
    if (source) {
      const size_t line = source->lineno_for_offset(range.start());
      held.push_back(source->get_line(line).str());
      frame.text = gp_str(held.back());
    }
    frames.push_back(frame);
  }
  core->value_args(run, items.data(), items.size(), frames.data(), frames.size());
  texts.clear();
}

// The arguments of an operation, from the stack before the call. Those that are what the schema says anyway are left
// out, and all after the first of those get their keyword.
void give_op_args(GpRun* run, const c10::FunctionSchema& schema, const c10::IValue* values) {
  const auto& arguments = schema.arguments();
  Items items;
  bool skipped = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_default(arguments[i], values[i])) {
      skipped = true;
      continue;
    }
    items.add_argument(arguments[i], values[i], skipped || arguments[i].kwarg_only());
  }
  give_args(run, items);
}

} // namespace graphpatch
