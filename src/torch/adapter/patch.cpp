// Applies the targets of a value: follows the dig to the leaf, and decides whether the leaf is changed in place or on a copy.
#include "cell.h"
#include "containers.h"
#include "device.h"
#include "distributed.h"
#include "gradients.h"
#include "mirror.h"
#include "write.h"

#include <ATen/core/grad_mode.h>

namespace graphpatch {

// While it lives, operations run outside of all functorch transforms, so that a tensor that no transform has wrapped (a weight
// inside `grad`, say) can be copied and written.
class OutsideTransforms {
public:
  explicit OutsideTransforms(const at::Tensor& tensor) {
    constexpr auto kFront = c10::DispatchKey::FuncTorchDynamicLayerFrontMode;
    if (c10::impl::tls_is_dispatch_key_included(kFront) && is_plain(tensor)) {
      front_.emplace(kFront);
      back_.emplace(c10::DispatchKey::FuncTorchDynamicLayerBackMode);
    }
  }

private:
  std::optional<c10::impl::ExcludeDispatchKeyGuard> front_, back_;
};

static uint32_t patched_tensor(const GpTarget& target, at::Tensor& tensor, bool shared, Ownership how) {
  uint32_t answer;
  if (target.action != GP_CUSTOM_TORCH && loses_gradient(tensor))
    return elsewhere(target, kLosesGradient, &tensor);
  // Whether nobody else sees the tensor's memory.
  const bool sole = (how == Ownership::Result || how == Ownership::Owned) && !shared && is_memory(tensor) &&
                    only_ours(tensor, how == Ownership::Owned ? 2 : 1);
  if (!tensor.defined() && target.action != GP_CUSTOM_TORCH) {
    answer = elsewhere(target, "there is no tensor here in this run", nullptr);
  } else if (target.action == GP_CUSTOM_TORCH) {
    const at::Tensor before = tensor;
    answer = show_to_function(target, tensor, how == Ownership::InPlace);
    const bool changed = !tensor.is_same(before);
    if (changed && tensor.defined())
      patched_without_history(target, tensor);
    if (!sole && how != Ownership::InPlace && changed && is_memory(before) && is_memory(tensor) && is_alike(tensor, before)) {
      // The function may have returned a tensor of the user's, which must not change together with the original.
      if (!target.slice_len)
        tensor = copy_of(before, tensor);
      mirror(before, tensor);
    }
    // The unboxed caller of an in-place operator returns its own argument, whatever value we leave here.
    if (how == Ownership::InPlace && changed) {
      before.copy_(tensor);
      tensor = before;
    }
  } else if (const Part part = part_of(tensor); part.known) {
    flush_device();
    const std::string why = reason([&] {
      at::Tensor made = written_in_parts(part, tensor, target, at::GradMode::is_enabled());
      if (how == Ownership::InPlace) // the caller returns its own argument, whatever value we leave here
        tensor.copy_(made);
      else
        tensor = std::move(made);
    });
    answer = elsewhere(target, why, &tensor);
  } else {
    const OutsideTransforms outside(tensor);
    const bool gradient =
        target.tensor && target.tensor->foreign && static_cast<const at::Tensor*>(target.tensor->foreign)->requires_grad();
    bool differentiable = at::GradMode::is_enabled() && (tensor.requires_grad() || gradient);
    // Python's factories (torch.full) call their operator below autograd, and drop the history of its result afterwards.
    if (gradient && differentiable && c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradFunctionality))
      return elsewhere(target, "no gradient can reach the patch's value here, below autograd: detach it", &tensor);
    const bool in_place = how == Ownership::InPlace || (sole && !differentiable && is_plain(tensor));
    if (in_place) {
      answer = write(target, tensor, differentiable);
      // Autograd may have saved this memory, which has changed now. The new version number lets it report that.
      if (how == Ownership::InPlace && answer == GP_APPLIED && !differentiable && !tensor.is_inference())
        tensor.unsafeGetTensorImpl()->bump_version();
    } else {
      at::Tensor copy;
      flush_device();
      const std::string why = reason([&] { copy = copy_of(tensor); });
      answer = copy.defined() ? write(target, copy, differentiable) : elsewhere(target, why, &tensor);
      // If the patch changed no element, the tensor itself is kept: models ask whether two values are one (`key is value`),
      // and the copy of a tensor that overlaps itself has other strides.
      const bool unchanged = answer == GP_APPLIED && !differentiable && how != Ownership::Parameter && is_plain(tensor) &&
                             tensor.device().is_cpu() && same_bits(copy, tensor);
      if (answer == GP_APPLIED && !unchanged) {
        if (!sole)
          mirror(tensor, copy);
        tensor = std::move(copy);
      }
    }
  }
  if (answer == GP_APPLIED && target.action != GP_CUSTOM_TORCH)
    patched_without_history(target, tensor);
  return answer;
}

static void patch_tensor(const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  // Out of the slot, so that a tensor that nobody else holds can be written in place.
  at::Tensor tensor = std::move(slot).toTensor();
  slot = c10::IValue();
  uint32_t answer = GP_APPLIED;
  try {
    answer = patched_tensor(target, tensor, shared, how);
  } catch (...) {
    slot = std::move(tensor);
    throw;
  }
  slot = std::move(tensor);
  verdict(answer);
}

static void patch_number(const GpTarget& target, c10::IValue& slot) {
  if (target.action == GP_KEEP && !core->keep_wanted(&target))
    return;
  if (target.action == GP_CUSTOM_TORCH) { // the function sees the number as a tensor without dimensions
    const auto dtype = slot.isBool() ? at::kBool : slot.isInt() ? at::kLong : at::kDouble;
    at::Tensor tensor = at::scalar_tensor(slot.toScalar(), dtype);
    verdict(show_to_function(target, tensor, true));
    if (slot.isBool())
      slot = tensor.item<bool>();
    else if (slot.isInt())
      slot = tensor.item<int64_t>();
    else
      slot = tensor.item<double>();
    return;
  }
  if (target.action == GP_CUSTOM) {
    verdict(elsewhere(target, "a plain number cannot be shown to a function", nullptr));
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
  uint32_t answer = core->apply_scalar(&target, &number);
  verdict(answer);
  if (answer != GP_APPLIED)
    return;
  if (number.tag == GP_BOOL)
    slot = number.i != 0;
  else if (number.tag == GP_INT)
    slot = number.i;
  else
    slot = number.re;
}

// Why a value is no leaf, with the same reason as a check of the path gives.
static std::string no_leaf(const c10::IValue& value) {
  const auto container = [](const char* kind, size_t size, const std::string& first) {
    const std::string what = std::string("the value in this run is a ") + kind + "(" + std::to_string(size) + ")";
    return size ? what + ", not one value: choose an element after `|`, as in |" + first : what + ", which is empty";
  };
  if (value.isTuple())
    return container("tuple", value.toTupleRef().elements().size(), "sub_0");
  if (value.isList())
    return container("list", value.toListRef().size(), "sub_0");
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    const auto first = dict.begin();
    const bool named = first != dict.end() && first->key().isString();
    return container("dict", dict.size(), named ? first->key().toStringRef() : "KEY");
  }
  if (value.isString())
    return "the value in this run is a str, which no patch can keep or change";
  const std::string kind = value.isCapsule() ? "foreign object" : value.tagKind();
  return "the value in this run is a " + kind + ", not a tensor or plain value";
}

// The element is missing. That is a failure unless the path is a pattern, which means only nodes that have the element.
static void no_element(const GpTarget& target, const char* why) {
  if (!target.tensors)
    verdict(elsewhere(target, why, nullptr));
}

// For a value that is None: a function may look at it and return a tensor. No other patch can be applied.
static void patch_none(const GpTarget& target, c10::IValue& slot) {
  if (target.action != GP_CUSTOM_TORCH)
    return verdict(elsewhere(target, "the value in this run is None", nullptr));
  at::Tensor tensor;
  verdict(show_to_function(target, tensor, false));
  if (tensor.defined())
    slot = std::move(tensor);
}

// Follows the dig from `value` to a leaf and keeps a copy of the leaf. Changes nothing.
static void keep_slot(const GpTarget& target, size_t depth, const c10::IValue& value) {
  if (depth == target.dig_len) {
    c10::IValue leaf = value;
    if (leaf.isTensor())
      keep_tensor(target, leaf.toTensor());
    else if (target.tensors)
      return;
    else if (leaf.isBool() || leaf.isInt() || leaf.isDouble())
      patch_number(target, leaf);
    else if (leaf.isNone()) // there is nothing to keep
      verdict(elsewhere(target, "", nullptr));
    else
      verdict(elsewhere(target, no_leaf(leaf), nullptr));
    return;
  }
  const GpStep& step = target.dig[depth];
  const size_t index = static_cast<size_t>(step.index);
  if (value.isTuple() && step.index >= 0 && index < value.toTupleRef().elements().size())
    return keep_slot(target, depth + 1, value.toTupleRef().elements()[index]);
  if (value.isList() && step.index >= 0 && index < value.toListRef().size())
    return keep_slot(target, depth + 1, value.toListRef()[index]);
  if (value.isGenericDict()) {
    const auto dict = value.toGenericDict();
    const auto found = dict.find(c10::IValue(to_string(step.key)));
    if (found != dict.end())
      return keep_slot(target, depth + 1, found->value());
  }
  no_element(target, "the value in this run has no such element");
}

static c10::IValue tuple_of(const c10::ivalue::Tuple& like, std::vector<c10::IValue> elements) {
  const auto type = like.type<c10::TupleType>();
  return type && type->schema() ? c10::IValue(c10::ivalue::Tuple::createNamed(std::move(elements), type))
                                : c10::IValue(c10::ivalue::Tuple::create(std::move(elements)));
}

static void patch_leaf(const GpTarget& target, c10::IValue& slot, bool shared, Ownership how) {
  if (slot.isTensor() && keep_in_cell(target, slot.toTensor()))
    verdict(elsewhere(target, "", &slot.toTensor()));
  else if (slot.isTensor())
    patch_tensor(target, slot, shared, how);
  else if (target.tensors)
    return; // a pattern means tensors only
  else if (slot.isBool() || slot.isInt() || slot.isDouble())
    patch_number(target, slot);
  else if (slot.isNone())
    patch_none(target, slot);
  else
    verdict(elsewhere(target, no_leaf(slot), nullptr));
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
  c10::IValue key(to_string(target.dig[depth].key));
  auto found = dict.find(key);
  if (found == dict.end())
    return false;
  dict = dict.copy();
  c10::IValue element = found->value();
  patch_slot(target, depth + 1, element, true, how);
  if (element.is(found->value()))
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
      no_element(target, "the operation has no such result");
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
  if (value.isTensor() && value.toTensor().defined()) {
    held().seen.emplace_back(value.toTensor().getIntrusivePtr());
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements())
      remember(element);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef())
      remember(element);
  }
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
  const bool told = !(wanted & GP_VALUE_ARGS) || has_memory_for(give_own);
  if (wanted && (!told || !has_memory_for([&] { handle_value(token, wanted, value, 1, how); })))
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
    std::optional<c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>> known;
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
