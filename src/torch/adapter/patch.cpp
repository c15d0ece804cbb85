// Applies the targets of a value: follows the dig to the leaf, and rebuilds the containers on the way that others hold.
#include "containers.h"
#include "device.h"
#include "distributed.h"
#include "gradients.h"
#include "mirror.h"
#include "write.h"

namespace graphpatch {

// The element is missing. That is a failure unless the path is a pattern, which means only nodes that have the element.
static void no_element(const GpTarget& target, const char* why) {
  if (!target.tensors)
    verdict(elsewhere(target, why, nullptr));
}

// Follows the dig from `value` to a leaf and keeps a copy of the leaf. Changes nothing.
static void keep_slot(const GpTarget& target, size_t depth, const c10::IValue& value) {
  if (depth == target.dig_len)
    return keep_leaf(target, value);
  const GpStep& step = target.dig[depth];
  const size_t index = static_cast<size_t>(step.index);
  if (value.isTuple() && step.index >= 0 && index < value.toTupleRef().elements().size())
    return keep_slot(target, depth + 1, value.toTupleRef().elements()[index]);
  if (value.isList() && step.index >= 0 && index < value.toListRef().size())
    return keep_slot(target, depth + 1, value.toListRef()[index]);
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    const c10::IValue key = key_named(dict, to_string(step.key));
    if (!key.isNone())
      return keep_slot(target, depth + 1, dict.at(key));
  }
  no_element(target, "the value in this run has no such element");
}

static c10::IValue tuple_of(const c10::ivalue::Tuple& like, std::vector<c10::IValue> elements) {
  const auto type = like.type<c10::TupleType>();
  return type && type->schema() ? c10::IValue(c10::ivalue::Tuple::createNamed(std::move(elements), type))
                                : c10::IValue(c10::ivalue::Tuple::create(std::move(elements)));
}

static void patch_slot(const GpTarget& target, size_t depth, c10::IValue& slot, bool shared, Ownership how);

// Returns false if the tuple has no such element.
static bool patch_in_tuple(const GpTarget& target, size_t depth, c10::IValue& slot, bool shared, Ownership how) {
  const GpStep& step = target.dig[depth];
  auto tuple = std::move(slot).toTuple();
  slot = tuple;
  const size_t index = static_cast<size_t>(step.index);
  if (step.index < 0 || index >= tuple->elements().size())
    return false;
  const bool held = tuple.use_count() > 2; // the slot and this function
  if (held) {
    slot = tuple_of(*tuple, tuple->elements().vec());
    tuple = slot.toTuple();
  }
  // Out of the tuple, so that a tensor that nobody else holds can be written in place.
  c10::IValue element = tuple->elements()[index];
  tuple->unsafeSetElement(index, c10::IValue());
  const bool was_none = element.isNone();
  try {
    patch_slot(target, depth + 1, element, shared || held, how);
  } catch (...) {
    tuple->unsafeSetElement(index, std::move(element));
    throw;
  }
  const bool same_type = element.isNone() == was_none;
  tuple->unsafeSetElement(index, std::move(element));
  if (!same_type) // a tuple remembers its type
    slot = tuple_of(*tuple, tuple->elements().vec());
  return true;
}

// Returns false if the list has no such element.
static bool patch_in_list(const GpTarget& target, size_t depth, c10::IValue& slot, bool shared, Ownership how) {
  const GpStep& step = target.dig[depth];
  c10::List<c10::IValue> list = std::move(slot).toList();
  const bool held = list.use_count() > 1 && how != Ownership::InPlace;
  if (step.index < 0 || static_cast<size_t>(step.index) >= list.size()) {
    slot = std::move(list);
    return false;
  }
  const c10::List<c10::IValue> own = list;
  if (held) {
    slot = list; // there may be no memory for the copy
    list = list.copy();
    slot = c10::IValue();
  }
  c10::IValue element = list.extract(step.index);
  try {
    patch_slot(target, depth + 1, element, shared || held, how);
  } catch (...) {
    list.set(step.index, std::move(element));
    slot = std::move(list);
    throw;
  }
  const bool unchanged = held && element.is(own.get(step.index));
  list.set(step.index, std::move(element));
  slot = unchanged ? own : std::move(list);
  return true;
}

// Returns false if the dict has no such key.
static bool patch_in_dict(const GpTarget& target, size_t depth, c10::IValue& slot, Ownership how) {
  auto dict = slot.toGenericDict();
  const c10::IValue key = key_named(dict, to_string(target.dig[depth].key));
  if (key.isNone())
    return false;
  const c10::IValue own = dict.at(key);
  dict = dict.copy();
  c10::IValue element = own;
  patch_slot(target, depth + 1, element, true, how);
  if (element.is(own))
    return true;
  dict.insert_or_assign(key, element);
  slot = dict;
  return true;
}

// Follows the dig from `slot`. Containers on the way that others hold are rebuilt, so that they do not change for those others.
static void patch_slot(const GpTarget& target, size_t depth, c10::IValue& slot, bool shared, Ownership how) {
  if (depth == target.dig_len)
    return patch_leaf(target, slot, shared, how);
  bool found = false;
  if (slot.isTuple())
    found = patch_in_tuple(target, depth, slot, shared, how);
  else if (slot.isList())
    found = patch_in_list(target, depth, slot, shared, how);
  else if (slot.isGenericDict())
    found = patch_in_dict(target, depth, slot, how);
  if (!found)
    no_element(target, "the value in this run has no such element");
}

void apply_targets(const GpTarget* targets, size_t n_targets, c10::IValue* values, size_t n, Ownership how) {
  const FlushDevice flushed;
  for (size_t i = 0; i < n_targets; ++i) {
    const GpTarget& target = targets[i];
    expect_more(i + 1 < n_targets);
    if (target.action > GP_REPLACE)
      flush_device(); // a target that reads the value must find it patched
    const bool digs = target.dig_len && target.dig[0].index >= 0 && static_cast<size_t>(target.dig[0].index) < n;
    if (n == 1 || digs) {
      c10::IValue& value = n == 1 ? values[0] : values[target.dig[0].index];
      const size_t depth = n == 1 ? 0 : 1;
      if (target.action == GP_KEEP)
        keep_slot(target, depth, value);
      else
        patch_slot(target, depth, value, false, how);
    } else {
      const bool whole = n > 1 && !target.dig_len;
      no_element(target, whole ? container_is_no_leaf("tuple", n, "sub_0").c_str() : "the operation has no such result");
    }
  }
  flush_device();
}

static Items& scratch() {
  static thread_local Items items;
  items.clear();
  return items;
}

void remember(const c10::IValue& value) {
  for_each_tensor(value, [](const at::Tensor& tensor) { held().seen.emplace_back(tensor.getIntrusivePtr()); });
}

void handle_scope_value(uint32_t kind, uint32_t index, c10::IValue* value, Ownership how) {
  // Only where others hold a list or dict does it matter whether it is copied.
  const c10::IValue before = is_shared_container(*value) ? *value : c10::IValue();
  has_memory_for([&] { handle_operands(kind == GP_VALUE_INPUT ? 1 : 0, value, 1); });
  GpToken token;
  const uint32_t wanted = core->value_begin(kind, index, &token);
  const auto give_own = [&] {
    Items items;
    items.add(*value);
    give_args(token, items, Called::Nowhere);
  };
  const bool described = !(wanted & GP_VALUE_ARGS) || has_memory_for(give_own);
  if (wanted && (!described || !has_memory_for([&] { handle_value(token, wanted, value, 1, how); })))
    core->value_abandon(&token);
  const GpThread& thread = this_thread();
  has_memory_for([&] { note_copies(kind == GP_VALUE_INPUT ? thread.frame : thread.outer_frame, before, *value); });
  came_to_be(value, 1);
}

void handle_value(const GpToken& token, uint32_t wanted, c10::IValue* values, size_t n, Ownership how, bool rewrapped) {
  if (wanted & GP_VALUE_TARGETS) {
    Targets targets;
    targets.size = core->value_targets(&token, &targets.owner, &targets.data);
    // An operation may hand back its operand (`to`), which is no plain tensor in Python, perhaps.
    std::optional<WeakTensor> known;
    const auto tensor = [&] { return n == 1 && values[0].isTensor() ? values[0].toTensor() : at::Tensor(); };
    if (targets.size && how == Ownership::Result && tensor().defined() && is_known_to_python(tensor()))
      known.emplace(tensor().getIntrusivePtr());
    apply_targets(targets.data, targets.size, values, n, how);
    const at::Tensor before = known ? at::Tensor(known->lock()) : at::Tensor();
    if (at::Tensor after = tensor(); before.defined() && after.defined() && !after.is_same(before)) {
      keep_class(before, after);
      values[0] = std::move(after);
    }
    // A tensor that a function of Python's has seen has a Python object, which cannot get another class.
    if (rewrapped && targets.size && n == 1 && values[0].isTensor() && is_memory(values[0].toTensor()))
      values[0] = at::alias(values[0].toTensor());
  }
  if (wanted & GP_VALUE_ITEMS) {
    Items& items = scratch();
    if (n == 0)
      items.add(c10::IValue());
    else if (n > 1)
      items.open_tuple(n);
    for (size_t i = 0; i < n; ++i) {
      items.add(values[i]);
      remember(values[i]);
    }
    core->value_items(&token, items.data(), items.size());
  }
}

} // namespace graphpatch
