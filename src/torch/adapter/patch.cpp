// Targets on values: finds the leaf, decides whose memory it is, and lets the core (plain CPU memory) or libtorch
// (everything else) write it.
#include "adapter.h"

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

static std::vector<at::indexing::TensorIndex> indices(const GpTarget& target) {
  using namespace at::indexing;
  std::vector<TensorIndex> out;
  for (size_t i = 0; i < target.slice_len; ++i) {
    const GpSliceItem& item = target.slice[i];
    switch (item.tag) {
      case GP_SLICE_INDEX:
        out.emplace_back(item.start);
        break;
      case GP_SLICE_RANGE: {
        std::optional<c10::SymInt> start, stop;
        if (item.has_start)
          start = item.start;
        if (item.has_stop)
          stop = item.stop;
        out.emplace_back(Slice(start, stop, item.step));
        break;
      }
      case GP_SLICE_ELLIPSIS:
        out.emplace_back(Ellipsis);
        break;
      default:
        out.emplace_back(None);
    }
  }
  if (out.empty())
    out.emplace_back(Ellipsis);
  return out;
}

// The same as Python's `tensor[slice] = number` and `tensor[slice] += number`, with autograd and every layout.
static void apply_with_libtorch(at::Tensor& tensor, const GpTarget& target) {
  auto where = indices(target);
  switch (target.action) {
    case GP_ZERO:
      tensor.index_put_(where, c10::Scalar(0));
      break;
    case GP_REPLACE:
      tensor.index_put_(where, scalar(target.value));
      break;
    default:
      tensor.index(where).add_(scalar(target.value));
  }
}

static uint32_t elsewhere(GpRun* run, const GpTarget& target, const std::string& why, const at::Tensor* tensor) {
  c10::IntArrayRef sizes;
  if (tensor && tensor->defined() && !tensor->is_nested() &&
      !tensor->unsafeGetTensorImpl()->has_symbolic_sizes_strides())
    sizes = tensor->sizes();
  return core->applied_elsewhere(run, &target, gp_str(why), sizes.data(), sizes.size());
}

static uint32_t write(GpRun* run, const GpTarget& target, at::Tensor& tensor, bool differentiable) {
  if (!differentiable && is_plain(tensor) && tensor.device().is_cpu() &&
      dtype_code(tensor.scalar_type()) != GP_DTYPE_OTHER) {
    GpTensor view{};
    view.data = tensor.mutable_data_ptr();
    view.sizes = tensor.sizes().data();
    view.strides = tensor.strides().data();
    view.rank = static_cast<uint32_t>(tensor.dim());
    view.dtype = dtype_code(tensor.scalar_type());
    uint32_t answer = core->apply(run, &target, &view);
    if (answer != GP_ELSEWHERE)
      return answer;
  }
  std::string why;
  try {
    apply_with_libtorch(tensor, target);
  } catch (const c10::Error& error) {
    why = error.what_without_backtrace();
  } catch (const std::exception& error) {
    why = error.what();
  }
  return elsewhere(run, target, why, &tensor);
}

static void patch_tensor(GpRun* run, const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  at::Tensor tensor = std::move(slot).toTensor();
  slot = c10::IValue();
  uint32_t answer;
  if (!tensor.defined()) {
    answer = elsewhere(run, target, "there is no tensor here in this run", nullptr);
  } else {
    bool differentiable = at::GradMode::is_enabled() && tensor.requires_grad();
    bool in_place = how == Ownership::InPlace ||
        (how == Ownership::Result && !shared && !differentiable && is_plain(tensor) && only_ours(tensor));
    if (in_place) {
      answer = write(run, target, tensor, differentiable);
      // What autograd saved of this memory is no longer what it was; let it say so.
      if (how == Ownership::InPlace && answer == GP_APPLIED && !differentiable && !tensor.is_inference())
        tensor.unsafeGetTensorImpl()->bump_version();
    } else {
      std::string why;
      at::Tensor copy;
      try {
        copy = copy_of(tensor);
      } catch (const c10::Error& error) {
        why = error.what_without_backtrace();
      } catch (const std::exception& error) {
        why = error.what();
      }
      answer = copy.defined() ? write(run, target, copy, differentiable) : elsewhere(run, target, why, &tensor);
      if (answer == GP_APPLIED)
        tensor = std::move(copy);
    }
  }
  slot = std::move(tensor);
  verdict(run, answer);
}

static void patch_number(GpRun* run, const GpTarget& target, c10::IValue& slot) {
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
    if (n == 1) {
      patch_slot(run, target, 0, values[0], false, how);
    } else if (target.dig_len && target.dig[0].index >= 0 && static_cast<size_t>(target.dig[0].index) < n) {
      patch_slot(run, target, 1, values[target.dig[0].index], false, how);
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
