// What a value was made from, for people: an operation's arguments with their keywords. The core asks for this only if a run
// does something that was not recorded before.
#include "adapter.h"
#include "source.h"

#include <list>

namespace graphpatch {

// TorchScript passes enumerations as plain numbers, but the schema still knows their type.
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

// The text of a number that is a constant of the code, as an export writes it: `tensor(1)`. The number is read from memory,
// because an operation that reads it could be seen by others.
static std::string number_text(const at::Tensor& tensor) {
  if (!tensor.defined() || !is_plain(tensor) || tensor.dim() != 0 || !tensor.device().is_cpu())
    return "";
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case at::kBool:
      return *static_cast<const bool*>(data) ? "tensor(True)" : "tensor(False)";
    case at::kInt:
      return c10::str("tensor(", *static_cast<const int32_t*>(data), ")");
    case at::kLong:
      return c10::str("tensor(", *static_cast<const int64_t*>(data), ")");
    case at::kFloat:
      return c10::str("tensor(", *static_cast<const float*>(data), ")");
    case at::kDouble:
      return c10::str("tensor(", *static_cast<const double*>(data), ")");
    default:
      return "";
  }
}

// Texts that items borrow while the core reads them. An empty list, unlike an empty deque, has asked for no memory, so neither
// making nor moving one can fail.
static thread_local std::list<std::string> texts;

void Items::add_argument(const c10::Argument& argument, const c10::IValue& value, bool by_keyword) {
  const size_t at = items_.size();
  std::string name;
  // In `x + 1` the 1 is passed as a tensor.
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
    if (value.isTensor()) {
      texts.push_back(number_text(value.toTensor()));
      items_[at].text = gp_str(texts.back());
    }
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

void give_args(const GpToken& token, const Items& items, Called called) {
  // Asking for the source may run code of the user's, whose operations may come back here.
  const auto borrowed = std::move(texts);
  texts.clear();
  Frames frames;
  if (called == Called::Here)
    frames.find();
  core->value_args(&token, items.data(), items.size(), frames.data(), frames.size());
}

// The arguments of an operation, from the stack before the call. Arguments that equal the schema's defaults are left out; all
// arguments after the first of these get their keyword.
void give_op_args(const GpToken& token, const c10::FunctionSchema& schema, const c10::IValue* values) {
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
  give_args(token, items, Called::Here);
}

} // namespace graphpatch
