// Targets on values: finds the leaf, decides whose memory it is, and lets the core (plain CPU memory) or libtorch
// (everything else) write it.
#include "adapter.h"
#include "dlpack_abi.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/grad_mode.h>

namespace graphpatch {

[[noreturn]] static void raise(GpRun* run) {
  TORCH_CHECK(false, to_string(core->failure(run)));
}

static void verdict(GpRun* run, uint32_t answer) {
  if (answer == GP_RAISE)
    raise(run);
}

// A copy with the very strides of the value where that is affordable, so that what reads it next takes the same path.
static at::Tensor copy_of(const at::Tensor& tensor) {
  if (!is_plain(tensor) || tensor.numel() == 0 || at::has_internal_overlap(tensor) != at::MemOverlap::No)
    return tensor.clone();
  int64_t span = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d)
    span += (tensor.size(d) - 1) * tensor.stride(d);
  if (span / 4 > tensor.numel())
    return tensor.clone();
  at::Tensor copy = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options());
  copy.copy_(tensor);
  return copy;
}

// Nobody but the one slot that we hold sees the memory: the value may be written where it lies.
// Memory that libtorch did not allocate (from_blob, shared, mapped) may have readers that no count shows.
static bool only_ours(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && tensor.has_storage() && tensor.storage().use_count() == 1 &&
      tensor.storage().allocator() != nullptr && tensor.storage().resizable() &&
      at::has_internal_overlap(tensor) == at::MemOverlap::No;
}

static c10::Scalar scalar(const GpScalar& number) {
  switch (number.tag) {
    case GP_BOOL:
      return c10::Scalar(number.i != 0);
    case GP_INT:
      return c10::Scalar(number.i);
    case GP_COMPLEX:
      return c10::Scalar(c10::complex<double>(number.re, number.im));
    default:
      return c10::Scalar(number.re);
  }
}

// The core's tensor as one of libtorch's. Without `owned` it borrows the core's memory for this call.
static at::Tensor tensor_of(const GpTensorArg& arg, const at::Tensor& like, bool owned) {
  at::Tensor tensor;
  if (arg.foreign) {
    tensor = *static_cast<const at::Tensor*>(arg.foreign);
  } else {
    tensor = at::from_blob(
        const_cast<void*>(arg.data), c10::IntArrayRef(arg.sizes, arg.rank), at::TensorOptions(dtype_of(arg.dtype)));
    if (owned)
      tensor = tensor.clone();
  }
  return tensor.device() == like.device() || tensor.dim() == 0 ? tensor : tensor.to(like.device());
}

struct Index {
  std::vector<at::indexing::TensorIndex> items;
  bool advanced = false; // reads a copy rather than a view
};

static Index index_of(const GpTarget& target, const at::Tensor& like) {
  using namespace at::indexing;
  Index out;
  for (size_t i = 0; i < target.slice_len; ++i) {
    const GpSliceItem& item = target.slice[i];
    switch (item.tag) {
      case GP_SLICE_INDEX:
        out.items.emplace_back(item.start);
        break;
      case GP_SLICE_RANGE: {
        std::optional<c10::SymInt> start, stop;
        if (item.has_start)
          start = item.start;
        if (item.has_stop)
          stop = item.stop;
        out.items.emplace_back(Slice(start, stop, item.step));
        break;
      }
      case GP_SLICE_ELLIPSIS:
        out.items.emplace_back(Ellipsis);
        break;
      case GP_SLICE_TENSOR:
        out.items.emplace_back(tensor_of(*item.tensor, like, true));
        out.advanced = true;
        break;
      default:
        out.items.emplace_back(None);
    }
  }
  if (out.items.empty())
    out.items.emplace_back(Ellipsis);
  return out;
}

// What the user's function makes of the picked part; undefined: it left it alone.
static at::Tensor call_user(const GpTarget& target, at::Tensor part) {
  part = part.detach();
  if (!is_plain(part))
    part = part.clone().resolve_conj().resolve_neg();
  TORCH_CHECK(is_plain(part), "its layout (", part.layout(), ") cannot be shown to a function");
  auto shown = dlpack::borrow(part);
  DlManagedTensor* made = nullptr;
  // The function may run models itself; those are no part of this run.
  Thread& thread = this_thread();
  GpRun* run = std::exchange(thread.run, nullptr);
  const int status = reinterpret_cast<int (*)(void*, DlManagedTensor*, DlManagedTensor**)>(target.callback)(
      target.user, &shown.managed, &made);
  thread.run = run;
  at::Tensor result = made ? dlpack::take(made) : at::Tensor();
  TORCH_CHECK(status == 0, "the function returned ", status);
  return result;
}

// The same as Python's `tensor[slice] = value` and `tensor[slice] += value`, with autograd and every layout.
static void apply_with_libtorch(at::Tensor& tensor, const GpTarget& target, bool differentiable) {
  Index where = index_of(target, tensor);
  switch (target.action) {
    case GP_ZERO:
      tensor.index_put_(where.items, c10::Scalar(0));
      break;
    case GP_REPLACE:
      if (target.tensor)
        tensor.index_put_(where.items, tensor_of(*target.tensor, tensor, differentiable));
      else
        tensor.index_put_(where.items, scalar(target.value));
      break;
    case GP_CUSTOM: {
      at::Tensor made = call_user(target, tensor.index(where.items));
      if (made.defined())
        tensor.index_put_(where.items, made.to(tensor.device()));
      break;
    }
    default: {
      at::Tensor part = tensor.index(where.items);
      if (target.tensor)
        part.add_(tensor_of(*target.tensor, tensor, differentiable));
      else
        part.add_(scalar(target.value));
      if (where.advanced)
        tensor.index_put_(where.items, part);
    }
  }
}

static uint32_t elsewhere(GpRun* run, const GpTarget& target, const std::string& why, const at::Tensor* tensor) {
  c10::IntArrayRef sizes;
  if (tensor && tensor->defined() && !tensor->is_nested() &&
      !tensor->unsafeGetTensorImpl()->has_symbolic_sizes_strides())
    sizes = tensor->sizes();
  return core->applied_elsewhere(run, &target, gp_str(why), sizes.data(), sizes.size());
}

static GpTensor view_of(const at::Tensor& tensor, void* data) {
  GpTensor view{};
  view.data = data;
  view.sizes = tensor.sizes().data();
  view.strides = tensor.strides().data();
  view.rank = static_cast<uint32_t>(tensor.dim());
  view.dtype = dtype_code(tensor.scalar_type());
  return view;
}

static bool is_plain_cpu(const at::Tensor& tensor) {
  return is_plain(tensor) && tensor.device().is_cpu() && dtype_code(tensor.scalar_type()) != GP_DTYPE_OTHER;
}

// Runs `body`; what it throws becomes the reason of a failure.
template <class Body>
static std::string reason(Body body) {
  try {
    body();
    return "";
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of an unknown kind";
  }
}

static uint32_t write(GpRun* run, const GpTarget& target, at::Tensor& tensor, bool differentiable) {
  if (!differentiable && is_plain_cpu(tensor)) {
    GpTensor view = view_of(tensor, tensor.mutable_data_ptr());
    uint32_t answer = core->apply(run, &target, &view);
    if (answer != GP_ELSEWHERE)
      return answer;
  }
  const std::string why = reason([&] { apply_with_libtorch(tensor, target, differentiable); });
  return elsewhere(run, target, why, &tensor);
}

// Shows the core a tensor to keep a copy of.
static void keep_tensor(GpRun* run, const GpTarget& target, const at::Tensor& tensor) {
  if (!core->keep_wanted(run, &target))
    return;
  at::Tensor plain = tensor;
  std::string why = tensor.defined() ? "" : "there is no tensor here in this run";
  if (why.empty() && !is_plain_cpu(tensor)) {
    why = reason([&] {
      plain = tensor.detach().resolve_conj().resolve_neg().to(c10::kCPU);
      TORCH_CHECK(is_plain_cpu(plain), "a ", tensor.layout(), " tensor of ", tensor.scalar_type(), " cannot be kept");
    });
  }
  if (!why.empty()) {
    verdict(run, elsewhere(run, target, why, &tensor));
    return;
  }
  GpTensor view = view_of(plain, const_cast<void*>(plain.const_data_ptr()));
  verdict(run, core->keep(run, &target, &view));
}

static void patch_tensor(GpRun* run, const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  at::Tensor tensor = std::move(slot).toTensor();
  slot = c10::IValue();
  uint32_t answer;
  if (!tensor.defined()) {
    answer = elsewhere(run, target, "there is no tensor here in this run", nullptr);
  } else {
    const bool gradient = target.tensor && target.tensor->foreign &&
        static_cast<const at::Tensor*>(target.tensor->foreign)->requires_grad();
    bool differentiable = at::GradMode::is_enabled() && (tensor.requires_grad() || gradient);
    bool in_place = how == Ownership::InPlace ||
        (how == Ownership::Result && !shared && !differentiable && is_plain(tensor) && only_ours(tensor));
    if (in_place) {
      answer = write(run, target, tensor, differentiable);
      // What autograd saved of this memory is no longer what it was; let it say so.
      if (how == Ownership::InPlace && answer == GP_APPLIED && !differentiable && !tensor.is_inference())
        tensor.unsafeGetTensorImpl()->bump_version();
    } else {
      at::Tensor copy;
      const std::string why = reason([&] { copy = copy_of(tensor); });
      answer = copy.defined() ? write(run, target, copy, differentiable) : elsewhere(run, target, why, &tensor);
      if (answer == GP_APPLIED)
        tensor = std::move(copy);
    }
  }
  slot = std::move(tensor);
  verdict(run, answer);
}

static void patch_number(GpRun* run, const GpTarget& target, c10::IValue& slot) {
  if (target.action == GP_KEEP && !core->keep_wanted(run, &target))
    return;
  if (target.action == GP_CUSTOM) {
    verdict(run, elsewhere(run, target, "a plain number cannot be shown to a function", nullptr));
    return;
  }
  GpScalar number{};
  if (slot.isBool()) {
    number.tag = GP_BOOL;
    number.i = slot.toBool();
  } else if (slot.isInt()) {
    number.tag = GP_INT;
    number.i = slot.toInt();
  } else {
    number.tag = GP_FLOAT;
    number.re = slot.toDouble();
  }
  uint32_t answer = core->apply_scalar(run, &target, &number);
  verdict(run, answer);
  if (answer != GP_APPLIED)
    return;
  if (number.tag == GP_BOOL)
    slot = number.i != 0;
  else if (number.tag == GP_INT)
    slot = number.i;
  else
    slot = number.re;
}

// Walks the dig from `value` to a leaf and keeps a copy of it; changes nothing.
static void keep_slot(GpRun* run, const GpTarget& target, size_t depth, const c10::IValue& value) {
  if (depth == target.dig_len) {
    c10::IValue leaf = value;
    if (leaf.isTensor())
      keep_tensor(run, target, leaf.toTensor());
    else if (leaf.isBool() || leaf.isInt() || leaf.isDouble())
      patch_number(run, target, leaf);
    else
      verdict(run, elsewhere(run, target, "the value in this run is a " + leaf.tagKind() + ", not a leaf", nullptr));
    return;
  }
  const GpStep& step = target.dig[depth];
  const size_t index = static_cast<size_t>(step.index);
  if (value.isTuple() && step.index >= 0 && index < value.toTupleRef().elements().size())
    return keep_slot(run, target, depth + 1, value.toTupleRef().elements()[index]);
  if (value.isList() && step.index >= 0 && index < value.toListRef().size())
    return keep_slot(run, target, depth + 1, value.toListRef()[index]);
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    const auto found = dict.find(c10::IValue(to_string(step.key)));
    if (found != dict.end())
      return keep_slot(run, target, depth + 1, found->value());
  }
  verdict(run, elsewhere(run, target, "the value in this run has no such element", nullptr));
}

// Walks the dig from `slot`. Containers on the way are rebuilt when someone else holds them, never changed for others.
static void patch_slot(
    GpRun* run,
    const GpTarget& target,
    size_t depth,
    c10::IValue& slot,
    bool shared,
    Ownership how) {
  if (depth == target.dig_len) {
    if (slot.isTensor())
      patch_tensor(run, target, slot, shared, how);
    else if (slot.isBool() || slot.isInt() || slot.isDouble())
      patch_number(run, target, slot);
    else
      verdict(run, elsewhere(run, target, "the value in this run is a " + slot.tagKind() + ", not a leaf", nullptr));
    return;
  }
  const GpStep& step = target.dig[depth];
  const auto missing = [&] {
    verdict(run, elsewhere(run, target, "the value in this run has no such element", nullptr));
  };
  if (slot.isTuple()) {
    auto tuple = std::move(slot).toTuple();
    bool held = tuple.use_count() > 1;
    size_t size = tuple->elements().size();
    if (step.index < 0 || static_cast<size_t>(step.index) >= size) {
      slot = std::move(tuple);
      return missing();
    }
    std::vector<c10::IValue> elements =
        held ? tuple->elements().vec() : std::vector<c10::IValue>(std::move(*tuple).elements().vec());
    auto rebuild = [&] {
      auto type = tuple->type<c10::TupleType>();
      slot = (type && type->schema()) ? c10::IValue(c10::ivalue::Tuple::createNamed(std::move(elements), type))
                                      : c10::IValue(c10::ivalue::Tuple::create(std::move(elements)));
    };
    if (!held)
      tuple->setElements(std::vector<c10::IValue>(size));
    try {
      patch_slot(run, target, depth + 1, elements[step.index], shared || held, how);
    } catch (...) {
      rebuild();
      throw;
    }
    rebuild();
  } else if (slot.isList()) {
    c10::List<c10::IValue> list = std::move(slot).toList();
    bool held = list.use_count() > 1 && how != Ownership::InPlace;
    if (step.index < 0 || static_cast<size_t>(step.index) >= list.size()) {
      slot = std::move(list);
      return missing();
    }
    if (held)
      list = list.copy();
    c10::IValue element = list.extract(step.index);
    try {
      patch_slot(run, target, depth + 1, element, shared || held, how);
    } catch (...) {
      list.set(step.index, std::move(element));
      slot = std::move(list);
      throw;
    }
    list.set(step.index, std::move(element));
    slot = std::move(list);
  } else if (slot.isGenericDict()) {
    auto dict = slot.toGenericDict();
    c10::IValue key(to_string(step.key));
    auto found = dict.find(key);
    if (found == dict.end())
      return missing();
    dict = dict.copy();
    c10::IValue element = found->value();
    patch_slot(run, target, depth + 1, element, true, how);
    dict.insert_or_assign(key, element);
    slot = dict;
  } else {
    missing();
  }
}

void apply_targets(GpRun* run, const GpTarget* targets, size_t n_targets, c10::IValue* values, size_t n, Ownership how) {
  for (size_t i = 0; i < n_targets; ++i) {
    const GpTarget& target = targets[i];
    const bool digs = target.dig_len && target.dig[0].index >= 0 && static_cast<size_t>(target.dig[0].index) < n;
    if (n == 1 || digs) {
      c10::IValue& value = n == 1 ? values[0] : values[target.dig[0].index];
      const size_t depth = n == 1 ? 0 : 1;
      if (target.action == GP_KEEP)
        keep_slot(run, target, depth, value);
      else
        patch_slot(run, target, depth, value, false, how);
    } else {
      verdict(run, elsewhere(run, target, "the operation has no such result", nullptr));
    }
  }
}

static Items& scratch() {
  static thread_local Items items;
  items.clear();
  return items;
}

static void remember(Thread& thread, const c10::IValue& value) {
  if (value.isTensor() && value.toTensor().defined()) {
    thread.seen.emplace_back(value.toTensor().getIntrusivePtr());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements())
      remember(thread, element);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef())
      remember(thread, element);
  }
}

void handle_value(GpRun* run, uint32_t wanted, c10::IValue* values, size_t n, Ownership how) {
  if (wanted & GP_VALUE_TARGETS) {
    const GpTarget* targets = nullptr;
    size_t n_targets = core->value_targets(run, &targets);
    apply_targets(run, targets, n_targets, values, n, how);
  }
  if (wanted & GP_VALUE_ITEMS) {
    Thread& thread = this_thread();
    Items& items = scratch();
    if (n == 0)
      items.add(c10::IValue());
    else if (n > 1)
      items.open_tuple(n);
    for (size_t i = 0; i < n; ++i) {
      items.add(values[i]);
      remember(thread, values[i]);
    }
    core->value_items(run, items.data(), items.size());
  }
}

// The patched copy of a parameter for the frame at `level`, made once per frame.
static at::Tensor patched_parameter(GpRun* run, uint32_t level, Frame& frame, const at::Tensor& parameter) {
  const void* identity = parameter.unsafeGetTensorImpl();
  for (const auto& entry : frame.patched)
    if (entry.first == identity)
      return entry.second;
  const GpTarget* targets = nullptr;
  size_t n = core->parameter_targets(run, level, identity, &targets);
  c10::IValue value(parameter);
  apply_targets(run, targets, n, &value, 1, Ownership::Borrowed);
  at::Tensor patched = value.toTensor();
  frame.patched.emplace_back(identity, patched);
  return patched;
}

static void collect(Items& items, const c10::IValue& value) {
  if (value.isTensor()) {
    if (value.toTensor().defined())
      items.add_tensor(value.toTensor());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements())
      collect(items, element);
  } else if (value.isTensorList() || value.isOptionalTensorList()) {
    for (const c10::IValue& element : value.toListRef())
      collect(items, element);
  }
}

// Walks the tensors in the same order as `collect`.
static void substitute(
    GpRun* run,
    uint32_t level,
    Frame& frame,
    c10::IValue& value,
    const std::vector<uint8_t>& replace,
    size_t& at) {
  if (value.isTensor()) {
    if (value.toTensor().defined() && replace[at++])
      value = patched_parameter(run, level, frame, value.toTensor());
  } else if (value.isTuple()) {
    std::vector<c10::IValue> elements = value.toTupleRef().elements().vec();
    for (c10::IValue& element : elements)
      substitute(run, level, frame, element, replace, at);
    value = c10::ivalue::Tuple::create(std::move(elements));
  } else if (value.isTensorList() || value.isOptionalTensorList()) {
    c10::List<c10::IValue> list = value.toList().copy();
    for (size_t i = 0; i < list.size(); ++i) {
      c10::IValue element = list.get(i);
      substitute(run, level, frame, element, replace, at);
      list.set(i, std::move(element));
    }
    value = std::move(list);
  }
}

void handle_operands(GpRun* run, uint32_t level, c10::IValue* values, size_t n) {
  Thread& thread = this_thread();
  if (thread.frames.size() <= level)
    return;
  Frame& frame = thread.frames[thread.frames.size() - 1 - level];
  if (!(frame.flags & GP_FRAME_OPERANDS))
    return;
  Items& items = scratch();
  for (size_t i = 0; i < n; ++i)
    collect(items, values[i]);
  if (!items.size())
    return;
  static thread_local std::vector<uint8_t> replace;
  replace.assign(items.size(), 0);
  core->operands(run, level, items.data(), items.size(), replace.data());
  bool any = false;
  for (uint8_t flag : replace)
    any = any || flag;
  if (!any)
    return;
  std::vector<uint8_t> flags = replace; // patching may come back here
  size_t at = 0;
  for (size_t i = 0; i < n; ++i)
    substitute(run, level, frame, values[i], flags, at);
}

} // namespace graphpatch
