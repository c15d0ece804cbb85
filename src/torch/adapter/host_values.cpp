// Host values: a program shows an input or the output of a scope by calls (C++, Python), and gets its leaves as the patches
// left them. This file also has the operators by which Python, which has no pointers, reaches tensors and modules.
#include "gradients.h"
#include "write.h"

#include <torch/csrc/jit/runtime/custom_operator.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

namespace graphpatch {

// Builds the value that `items` describe from index `at` on.
static c10::IValue build(const GpItem* items, size_t n, size_t& at) {
  TORCH_CHECK(at < n, "a value that ends in the middle");
  const GpItem& item = items[at++];
  switch (item.tag) {
    case GP_TENSOR:
      return tensor_at(item.identity);
    case GP_UNDEFINED:
      return at::Tensor();
    case GP_BOOL:
    case GP_INT:
    case GP_FLOAT:
    case GP_COMPLEX:
      return value_of(item.number);
    case GP_STR:
      return to_string(item.text);
    case GP_TUPLE: {
      std::vector<c10::IValue> elements;
      for (uint32_t i = 0; i < item.count; ++i)
        elements.push_back(build(items, n, at));
      return c10::ivalue::Tuple::create(std::move(elements));
    }
    case GP_LIST: {
      c10::List<c10::IValue> list(c10::AnyType::get());
      for (uint32_t i = 0; i < item.count; ++i)
        list.push_back(build(items, n, at));
      return list;
    }
    case GP_DICT: {
      c10::Dict<c10::IValue, c10::IValue> dict(c10::StringType::get(), c10::AnyType::get());
      for (uint32_t i = 0; i < item.count; ++i) {
        TORCH_CHECK(at < n, "a value that ends in the middle");
        const std::string key = to_string(items[at].key);
        dict.insert_or_assign(key, build(items, n, at));
      }
      return dict;
    }
    case GP_OTHER: // an object that is no leaf; the program gives its type's name
      return c10::IValue::make_capsule(c10::make_intrusive<torch::CustomClassHolder>());
    default:
      return c10::IValue();
  }
}

static bool same(const GpItem& item, const c10::IValue& value) {
  switch (item.tag) {
    case GP_TENSOR:
      return value.isTensor() && value.toTensor().unsafeGetTensorImpl() == item.identity;
    case GP_NONE:
      return value.isNone();
    case GP_UNDEFINED:
      return !value.isTensor() || !value.toTensor().defined();
    case GP_BOOL:
      return value.isBool() && value.toBool() == (item.number.i != 0);
    case GP_INT:
      return value.isInt() && value.toInt() == item.number.i;
    case GP_FLOAT: // NaN counts as unchanged
      return value.isDouble() && (value.toDouble() == item.number.re || value.toDouble() != value.toDouble());
    default:
      return true;
  }
}

// Walks the items and the value that was built from them side by side.
static void collect_leaves(const GpItem* items, size_t& at, const c10::IValue& value, std::vector<Leaf>& leaves) {
  const GpItem& item = items[at++];
  if (item.tag == GP_TUPLE) {
    for (uint32_t i = 0; i < item.count; ++i)
      collect_leaves(items, at, value.toTupleRef().elements()[i], leaves);
  } else if (item.tag == GP_LIST) {
    for (uint32_t i = 0; i < item.count; ++i)
      collect_leaves(items, at, value.toListRef()[i], leaves);
  } else if (item.tag == GP_DICT) {
    const auto dict = value.toGenericDict();
    for (uint32_t i = 0; i < item.count; ++i)
      collect_leaves(items, at, dict.at(to_string(items[at].key)), leaves);
  } else if (same(item, value)) {
    leaves.emplace_back();
  } else {
    leaves.push_back({true, value});
  }
}

static void do_wanted(const GpToken& token, uint32_t wanted, c10::IValue& value, const GpItem* items, Ownership how) {
  const auto list = [&](Items& out) {
    out.add(value);
    out.rename(items); // types without a tag, and dicts, keep the names that the program gave
  };
  if (wanted & GP_VALUE_ARGS) {
    Items made_from;
    list(made_from);
    give_args(token, made_from, Called::Nowhere);
  }
  if (wanted & GP_VALUE_TARGETS)
    handle_value(token, GP_VALUE_TARGETS, &value, 1, how);
  came_to_be(&value, 1);
  if (wanted & GP_VALUE_ITEMS) {
    Items seen;
    list(seen);
    remember(value);
    core->value_items(&token, seen.data(), seen.size());
  }
}

// The program has described the value with Python's names of types; what libtorch knows of a tensor is added by Items.
static void handle_shown(uint32_t kind, uint32_t index, c10::IValue& value, const GpItem* items, Ownership how) {
  has_memory_for([&] { handle_operands(kind == GP_VALUE_INPUT ? 1 : 0, &value, 1); });
  GpToken token;
  const uint32_t wanted = core->value_begin(kind, index, &token);
  if (!wanted)
    return;
  if (!has_memory_for([&] { do_wanted(token, wanted, value, items, how); }))
    core->value_abandon(&token);
}

GpStr show_value(uint32_t kind, uint32_t index, const GpItem* items, size_t n, uint32_t owned, uint32_t* changed) {
  *changed = 0;
  // Without memory for our own work, the value is shown as one that nothing has changed.
  const auto unchanged = [&] {
    *changed = 0;
    if (this_thread().held)
      held().shown.clear();
    return gp_str("");
  };
  if (!is_inside(this_thread()) || n == 0)
    return unchanged();
  try {
    c10::impl::ExcludeDispatchKeyGuard outside(kKey);
    size_t at = kind == GP_VALUE_INPUTS;
    const size_t last = kind == GP_VALUE_INPUTS ? index + items[0].count : index + 1;
    const uint32_t each = kind == GP_VALUE_OUTPUT ? GP_VALUE_OUTPUT : GP_VALUE_INPUT;
    const Ownership how = each == GP_VALUE_INPUT ? Ownership::Borrowed : owned ? Ownership::Owned : Ownership::Result;
    std::vector<Leaf> leaves; // a value that a patch's function shows meanwhile has leaves of its own
    for (; index < last; ++index) {
      const GpItem* own = items + at;
      c10::IValue value = build(items, n, at);
      handle_shown(each, index, value, own, how);
      size_t from = 0;
      collect_leaves(own, from, value, leaves);
    }
    for (const Leaf& leaf : leaves)
      *changed += leaf.changed;
    held().shown = std::move(leaves);
    return gp_str("");
  } catch (const std::bad_alloc&) {
    note_no_memory();
    return unchanged();
  } catch (const c10::Error& error) {
    return answer(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return answer(error.what());
  }
}

uint32_t shown_leaf(size_t index, GpLeaf* out) {
  if (!this_thread().held || index >= held().shown.size())
    return 0;
  const Leaf& leaf = held().shown[index];
  *out = GpLeaf{};
  out->changed = leaf.changed;
  if (leaf.value.isTensor())
    out->tensor = leaf.value.toTensor().unsafeGetTensorImpl();
  else if (!leaf.value.isNone())
    out->number = number_of(leaf.value);
  return 1;
}

static const void* pop_address(torch::jit::Stack& stack) {
  return reinterpret_cast<const void*>(torch::jit::pop(stack).toInt());
}

void register_host_operators() {
  using torch::jit::Operator;
  using torch::jit::Stack;
  const auto alias = c10::AliasAnalysisKind::CONSERVATIVE;
  static auto* operators = new torch::jit::RegisterOperators({
      // A new reference to the tensor at an address that the library gave (gp_scope_leaf, gp_torch_callback).
      Operator(
          "graphpatch::tensor_at(int address) -> Tensor",
          [](Stack& stack) { stack.emplace_back(tensor_at(pop_address(stack))); }, alias),
      // Makes a scripted module report its calls, from the next call on.
      Operator(
          "graphpatch::prepare(Any module) -> bool",
          [](Stack& stack) {
            const c10::IValue module = torch::jit::pop(stack);
            stack.emplace_back(prepare_script(module));
          },
          alias),
      // Sets the thread's switch of the TorchScript optimizer. Returns the value before.
      Operator(
          "graphpatch::optimize(bool on) -> bool",
          [](Stack& stack) {
            const bool on = torch::jit::pop(stack).toBool();
            const bool before = torch::jit::getGraphExecutorOptimize();
            torch::jit::setGraphExecutorOptimize(on);
            stack.emplace_back(before);
          },
          alias),
      // The address of a gp_torch_callback of Python's, which gives a tensor (whose address it gets as its user's pointer) the
      // class of another one.
      Operator(
          "graphpatch::keep_classes(int callback) -> ()",
          [](Stack& stack) { keep_classes_by(reinterpret_cast<TorchCallback>(torch::jit::pop(stack).toInt())); }, alias),
      // Called around an exchange of two tensors, which libtorch refuses if somebody holds one of them weakly. `let_go` returns
      // whether this thread's run did; `keep` has it hold the tensor again.
      Operator(
          "graphpatch::let_go(int address) -> bool", [](Stack& stack) { stack.emplace_back(let_go(pop_address(stack))); },
          alias),
      Operator(
          "graphpatch::keep(int address) -> ()", [](Stack& stack) { keep(pop_address(stack)); }, alias),
      // Called around the forward of a torch.autograd.Function, through whose own backward gradients will go.
      Operator(
          "graphpatch::own_backward(bool on) -> bool",
          [](Stack& stack) {
            const bool on = torch::jit::pop(stack).toBool();
            stack.emplace_back(set_own_backward(on));
          },
          alias),
  });
  (void)operators;
}

} // namespace graphpatch
