// Operands: parameters that an operation is about to read, and their patched copies.
#include "gradients.h"
#include "write.h"

#include <c10/util/SmallVector.h>

#include <algorithm>

namespace graphpatch {

// How an operand that is a patched parameter is treated.
enum Operand : uint8_t {
  kAsItIs,
  kPatched, // its patched copy takes its place
  kLookedAt, // the operation writes into it: it stays, and only patches that read it, such as probes, get it
};

static const c10::StorageImpl* memory_of(const at::Tensor& tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

void Held::forget_stale_copies(const at::Tensor& parameter) {
  const void* identity = parameter.unsafeGetTensorImpl();
  const c10::StorageImpl* memory = memory_of(parameter);
  const auto is_stale = [&](const Copy& copy) {
    return copy.parameter == identity && memory &&
           (copy.memory._unsafe_get_target() != memory || copy.offset != parameter.storage_offset() ||
            parameter.sizes() != at::IntArrayRef(copy.sizes));
  };
  if (std::any_of(copies.begin(), copies.end(), is_stale))
    keep_if(copies, [&](const Copy& copy) { return !is_stale(copy); });
}

static Held::Copy* copy_for(uint32_t frame, const void* identity) {
  for (Held::Copy& copy : held().copies)
    if (copy.frame == frame && copy.parameter == identity)
      return &copy;
  return nullptr;
}

// The patched copy that a scope around this frame has made: what is inside of that scope reads it as well.
static const Held::Copy* copy_around(uint32_t frame, const void* identity) {
  const Held::Copy* innermost = nullptr;
  for (const Held::Copy& copy : held().copies)
    if (copy.frame < frame && copy.parameter == identity && (!innermost || innermost->frame < copy.frame))
      innermost = &copy;
  return innermost;
}

// The patched copy of a parameter for the frame at `level`. It is made once for each frame.
static at::Tensor patched_parameter(uint32_t level, uint32_t frame, const at::Tensor& parameter, Operand how) {
  const void* identity = parameter.unsafeGetTensorImpl();
  // A flat run may go on without end, and an optimizer may have changed the parameter meanwhile, so its copies are not kept.
  // Inside of a function with a backward of its own the copy is refused, though it may be right outside of it.
  const bool keep = !this_thread().flat_now && !loses_gradient(parameter);
  Targets targets;
  const auto ask = [&] {
    if (!targets.owner)
      targets.size = core->parameter_targets(level, identity, &frame, &targets.owner, &targets.data);
  };
  held().forget_stale_copies(parameter);
  Held::Copy* copy = keep ? copy_for(frame, identity) : nullptr;
  if (!copy) {
    ask();
    copy = keep ? copy_for(frame, identity) : nullptr; // that of a scope around, if the parameter is its module's
  }
  if (copy) {
    if (how == kLookedAt)
      return parameter;
    if (!copy->patched.is_same(parameter) && loses_history(copy->noted)) {
      ask();
      for (size_t i = 0; i < targets.size; ++i)
        patched_without_history(targets.data[i], copy->patched);
    }
    return copy->patched;
  }
  const auto writes = [](const GpTarget& target) { return target.action <= GP_REPLACE; };
  if (how == kLookedAt && std::any_of(targets.data, targets.data + targets.size, writes))
    return parameter;
  const Held::Copy* around = copy_around(frame, identity);
  c10::IValue value(around ? around->patched : parameter);
  apply_targets(targets.data, targets.size, &value, 1, Ownership::Parameter);
  at::Tensor patched = value.toTensor();
  if (how == kLookedAt && !patched.is_same(parameter))
    return parameter; // a function that changes the value is called again after the operation has written
  if (targets.size && !patched.is_same(parameter))
    held().readers.patched(this_thread().flat_now ? Readers::kOutermost : frame, parameter, patched,
                           to_string(targets.data[0].text));
  if (keep && targets.size) {
    const c10::intrusive_ptr<c10::StorageImpl> none;
    Held::Copy made{frame, identity, c10::weak_intrusive_ptr<c10::StorageImpl>(none), {}, 0, patched};
    if (memory_of(parameter)) {
      made.memory = parameter.storage().getWeakStorageImpl();
      made.sizes.assign(parameter.sizes().begin(), parameter.sizes().end());
      made.offset = parameter.storage_offset();
    }
    held().copies.push_back(std::move(made));
  }
  return patched;
}

// Walks the tensors in the same order as `for_each_tensor`.
static void substitute(uint32_t level, uint32_t frame, c10::IValue& value, const uint8_t* replace, size_t& at) {
  if (value.isTensor()) {
    const auto how = value.toTensor().defined() ? static_cast<Operand>(replace[at++]) : kAsItIs;
    if (how != kAsItIs)
      value = patched_parameter(level, frame, value.toTensor(), how);
  } else if (value.isTuple()) {
    std::vector<c10::IValue> elements = value.toTupleRef().elements().vec();
    for (c10::IValue& element : elements)
      substitute(level, frame, element, replace, at);
    value = c10::ivalue::Tuple::create(std::move(elements));
  } else if (may_hold_tensors(value)) {
    c10::List<c10::IValue> list = value.toList().copy();
    for (size_t i = 0; i < list.size(); ++i) {
      c10::IValue element = list.get(i);
      substitute(level, frame, element, replace, at);
      list.set(i, std::move(element));
    }
    value = std::move(list);
  } else if (value.isGenericDict()) {
    auto dict = value.toGenericDict().copy();
    for (const auto& entry : value.toGenericDict()) {
      c10::IValue element = entry.value();
      substitute(level, frame, element, replace, at);
      dict.insert_or_assign(entry.key(), std::move(element));
    }
    value = std::move(dict);
  }
}

// The number by which the core knows a tensor; NULL for one that is no parameter of which it could know anything.
static const void* identity_of(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  return tensor.is_nested() || impl->has_symbolic_sizes_strides() ? nullptr : impl;
}

// Describes to the core the parameters that are to be recorded.
static void describe(uint32_t level, const c10::IValue* values, size_t n, uint64_t unseen, uint8_t* answers) {
  static thread_local Items items;
  size_t at = 0;
  const auto describe_tensor = [&](const at::Tensor& tensor) {
    uint8_t& answer = answers[at++];
    if (answer != GP_OPERAND_UNDESCRIBED)
      return;
    items.clear();
    items.add_tensor(tensor);
    answer = static_cast<uint8_t>(core->operand(level, items.data()));
  };
  for (size_t i = 0; i < n; ++i)
    if (!has_bit(unseen, i))
      for_each_tensor(values[i], describe_tensor);
}

bool handle_operands(uint32_t level, c10::IValue* values, size_t n, uint64_t unseen, uint64_t written) {
  const GpThread& thread = this_thread();
  if (!((level ? thread.outer_wants : thread.wants) & GP_WANTS_OPERANDS))
    return false;
  const uint32_t frame = level ? thread.outer_frame : thread.frame;
  c10::SmallVector<const void*, 16> identities;
  c10::SmallVector<uint8_t, 16> is_written; // of each identity
  for (size_t i = 0; i < n; ++i)
    if (!has_bit(unseen, i)) {
      for_each_tensor(values[i], [&](const at::Tensor& tensor) { identities.push_back(identity_of(tensor)); });
      is_written.resize(identities.size(), has_bit(written, i));
    }
  if (identities.empty())
    return false;
  c10::SmallVector<uint8_t, 16> operands(identities.size(), GP_OPERAND_PLAIN);
  core->operands(level, identities.data(), identities.size(), operands.data());
  if (!thread.flat_now)
    for (size_t i = 0; i < n; ++i)
      if (!has_bit(unseen, i) && !has_bit(written, i))
        for_each_tensor(values[i], [&](const at::Tensor& tensor) { held().readers.read(frame, tensor); });
  const auto is_plain_operand = [](uint8_t operand) { return operand == GP_OPERAND_PLAIN; };
  if (std::all_of(operands.begin(), operands.end(), is_plain_operand))
    return false;
  describe(level, values, n, unseen, operands.data());
  bool any = false;
  for (size_t i = 0; i < operands.size(); ++i) {
    operands[i] = operands[i] != GP_OPERAND_PATCHED ? kAsItIs : is_written[i] ? kLookedAt : kPatched;
    any |= operands[i] != kAsItIs;
  }
  if (!any)
    return false;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i)
    if (!has_bit(unseen, i))
      substitute(level, frame, values[i], operands.data(), at);
  return true;
}

} // namespace graphpatch
