// Attention's values: computed beside the fused operation, shown one by one, and put in its result's place if a patch changed
// one.
#include "attention.h"
#include "distributed.h"
#include "write.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/version.h>
#define GRAPHPATCH_SAFE_SOFTMAX (TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 5)
#if GRAPHPATCH_SAFE_SOFTMAX
#include <ATen/ops/_safe_softmax.h>
#endif

#include <cmath>
#include <limits>

namespace graphpatch {

struct Attention::Unseen {
  std::string why;
};

// How far the math path's result lies from the fused operation's: the largest difference that was measured for normally
// distributed operands (docs/reference/attention.md says how), rounded up.
static const char* tolerance(c10::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "1e-14 in float64";
    case at::kFloat:
      return "5e-6 in float32";
    case at::kHalf:
      return "4e-3 in float16";
    default:
      return "4e-2 in bfloat16";
  }
}

Attention::Attention(const GpToken& token, uint32_t wanted, const Dispatched& call, const OpInfo& info)
    : token_(token), patched_(wanted & GP_VALUE_INSIDE_TARGETS) {
  const c10::IValue* values = call.stack->data() + (call.stack->size() - info.n_arguments);
  query_ = values[0].toTensor();
  key_ = values[1].toTensor();
  value_ = values[2].toTensor();
  if (values[3].isTensor())
    mask_ = values[3].toTensor();
  dropout_ = values[4].toDouble();
  causal_ = values[5].toBool();
  scale_ = values[6].toOptional<double>();
  grouped_ = info.n_arguments > 7 && values[7].toBool();
}

void Attention::check_operands() const {
  if (dropout_ > 0)
    throw Unseen{"it drops probabilities at random, and another computation would drop others: set dropout_p to 0"};
  if (c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode))
    throw Unseen{"it is called inside of a transform of torch.func"};
  if (c10::impl::TorchDispatchModeTLS::stack_len() != 0)
    throw Unseen{"a TorchDispatchMode of the program's would see more operations than the model has"};
  for (const at::Tensor* operand : {&query_, &key_, &value_, &mask_})
    if (operand->defined() && (!is_plain(*operand) || (has_parts() && part_of(*operand).known)))
      throw Unseen{"its operands are no plain tensors (nested, distributed, or of a class of the program's)"};
  if (causal_ && mask_.defined())
    throw Unseen{"it has a mask and is_causal"};
}

// Before a patch has changed anything, the program's own result is there, and an error of ours must not reach the program.
template <class Body>
at::Tensor Attention::computed(const Body& body) const {
  const c10::impl::ExcludeDispatchKeyGuard outside_autocast(c10::autocast_dispatch_keyset);
  if (changed_)
    return body();
  try {
    return body();
  } catch (const std::exception& error) {
    throw Unseen{error.what()};
  }
}

// Whether nothing follows from a patch: it has put the same bits in the value's place, and no gradient is asked for there. On a
// device this is not looked for, since the host would have to wait.
static bool is_unchanged(const at::Tensor& before, const at::Tensor& after) {
  if (after.is_same(before))
    return true;
  return !after.requires_grad() && is_plain(after) && after.is_cpu() && after.scalar_type() == before.scalar_type() &&
         after.sizes() == before.sizes() && same_bits(before, after);
}

at::Tensor Attention::shown(uint32_t which, at::Tensor value, const std::vector<at::Tensor>& made_from) {
  static const char* const kOperators[] = {
      "", "", "", "aten::matmul", "aten::where.self", "aten::add.Tensor", "aten::softmax.int"};
  const bool is_input = which < GP_ATTENTION_SCORES;
  uint64_t family = 0;
  GpToken token;
  const uint32_t id = is_input ? which : core->op_define(gp_str(kOperators[which]), &family);
  const uint32_t wanted = core->inner(&token_, which, is_input ? GP_VALUE_INPUT : GP_VALUE_OP, id, &token);
  next_ = which + 1;
  if (!wanted)
    return value;
  if (wanted & GP_VALUE_ARGS) {
    Items items;
    for (const at::Tensor& tensor : made_from)
      items.add(tensor);
    give_args(token, items, Called::Nowhere);
  }
  const bool counts = !value.is_inference();
  const int64_t version = counts ? static_cast<int64_t>(value._version()) : 0;
  // As if it were the caller's: a patch that changes it acts on a copy, which tells that it has.
  c10::IValue slot(value);
  handle_value(token, wanted, &slot, 1, Ownership::Borrowed);
  TORCH_CHECK(slot.isTensor() && slot.toTensor().defined(), "graphpatch: a patch inside of attention gave no tensor");
  at::Tensor after = std::move(slot).toTensor();
  const bool written = counts && version != static_cast<int64_t>(value._version());
  changed_ = changed_ || written || !is_unchanged(value, after);
  return after;
}

// Fewer heads of keys than of queries: each is used by several of these.
at::Tensor Attention::repeated(const at::Tensor& tensor, const at::Tensor& query) const {
  if (!grouped_ || tensor.size(-3) == query.size(-3))
    return tensor;
  return tensor.repeat_interleave(query.size(-3) / tensor.size(-3), -3);
}

// Both factors are scaled, as libtorch does it for the sake of small numbers.
at::Tensor Attention::scores_of(const at::Tensor& query, const at::Tensor& key) const {
  const double scale = scale_ ? *scale_ : 1.0 / std::sqrt(static_cast<double>(query.size(-1)));
  const double factor = std::sqrt(std::abs(scale));
  return at::matmul(query * (scale < 0 ? -factor : factor), repeated(key, query).transpose(-2, -1) * factor);
}

// The mask as it is added to the scores: zero where a query may look, minus infinity elsewhere, or what the caller gave (as
// `type`, where autocast casts it). Undefined if there is none.
at::Tensor Attention::mask_for(const at::Tensor& scores, const at::Tensor& query, const at::Tensor& key,
                               std::optional<c10::ScalarType> type) const {
  at::Tensor allowed = mask_;
  if (causal_)
    allowed = at::ones({query.size(-2), key.size(-2)}, query.options().dtype(at::kBool)).tril();
  if (!allowed.defined())
    return allowed;
  if (allowed.scalar_type() != at::kBool)
    return type ? allowed.to(*type) : allowed;
  const auto options = scores.options();
  return at::where(allowed, at::scalar_tensor(0.0, options),
                   at::scalar_tensor(-std::numeric_limits<double>::infinity(), options));
}

static at::Tensor softmax(const at::Tensor& scores) {
#if GRAPHPATCH_SAFE_SOFTMAX
  return at::_safe_softmax(scores, -1);
#else
  return at::softmax(scores, -1);
#endif
}

// libtorch's math path computes these types in float32.
static bool is_widened(c10::ScalarType type) {
#if GRAPHPATCH_SAFE_SOFTMAX
  if (at::globalContext().allowFP16BF16ReductionMathSDP())
    return false;
  return type == at::kHalf || type == at::kBFloat16;
#else
  return false;
#endif
}

// The same values in the memory order of the fused result: models view it by its strides.
static at::Tensor laid_out_as(const at::Tensor& result, const at::Tensor& values) {
  at::Tensor same = values.to(result.scalar_type());
  if (same.sizes() != result.sizes() || same.strides() == result.strides())
    return same;
  at::Tensor copy = at::empty_strided(result.sizes(), result.strides(), result.options());
  return copy.copy_(same);
}

void Attention::compute(c10::IValue& result) {
  check_operands();
  const at::Tensor fused = result.toTensor();
  const auto type = fused.scalar_type();
  // Nothing follows from what is only looked at.
  std::optional<at::NoGradGuard> outside_autograd;
  if (!patched_)
    outside_autograd.emplace();
  // Under autocast, the fused operation takes its operands in another type. What it computes from them is not cast again.
  const auto cast = query_.scalar_type() == type ? std::nullopt : std::make_optional(type);
  const auto taken_as = [&](const at::Tensor& tensor) {
    return computed([&] { return tensor.to(type).to(is_widened(type) ? at::kFloat : type); });
  };
  query_ = shown(GP_ATTENTION_QUERY, query_, {query_});
  key_ = shown(GP_ATTENTION_KEY, key_, {key_});
  value_ = shown(GP_ATTENTION_VALUE, value_, {value_});
  const at::Tensor query = taken_as(query_), key = taken_as(key_), value = taken_as(value_);
  at::Tensor scores = computed([&] { return scores_of(query, key); });
  scores = shown(GP_ATTENTION_SCORES, scores, {query_, key_});
  at::Tensor mask = computed([&] { return mask_for(scores, query, key, cast); });
  if (mask.defined()) {
    const std::vector<at::Tensor> given(mask_.defined() ? 1 : 0, mask_);
    mask = shown(GP_ATTENTION_MASK, mask, given);
    const at::Tensor before = scores;
    scores = computed([&] { return before.add(mask).to(before.scalar_type()); });
    scores = shown(GP_ATTENTION_MASKED_SCORES, scores, {before, mask});
  }
  at::Tensor probabilities = computed([&] { return softmax(scores); });
  probabilities = shown(GP_ATTENTION_PROBABILITIES, probabilities, {scores});
  if (!changed_)
    return;
  result = computed([&] { return laid_out_as(fused, at::matmul(probabilities, repeated(value, query))); });
  const std::string note = std::string("a patch inside of attention: the operation's result is then computed by the math path, "
                                       "which rounds otherwise than the fused operation (differences up to ") +
                           tolerance(type) + " were measured)";
  core->note(gp_str(note));
}

// Tells why the inside cannot be seen, and that the patches of the values that were not shown have failed.
void Attention::refuse(const std::string& why) {
  const std::string text = "the inside of an attention cannot be computed: " + why;
  core->note(gp_str(text));
  for (uint32_t which = next_; which <= GP_ATTENTION_PROBABILITIES; ++which) {
    GpToken token;
    const uint32_t wanted = core->inner(&token_, which, GP_VALUE_UNSEEN, 0, &token);
    if (!(wanted & GP_VALUE_TARGETS))
      continue;
    Targets targets;
    targets.size = core->value_targets(&token, &targets.owner, &targets.data);
    for (size_t i = 0; i < targets.size; ++i)
      if (!targets.data[i].tensors) // a pattern means values that are there
        verdict(elsewhere(targets.data[i], text, nullptr));
  }
}

void Attention::show(c10::IValue& result) {
  try {
    compute(result);
  } catch (const Unseen& unseen) {
    refuse(unseen.why);
  }
  wanted_ = core->inner(&token_, GP_ATTENTION_OUTPUT, next_ ? GP_VALUE_OUTPUT : GP_VALUE_UNSEEN, 0, &output_);
  for (at::Tensor* operand : {&query_, &key_, &value_, &mask_})
    *operand = at::Tensor();
  if (wanted_ & GP_VALUE_TARGETS)
    handle_value(output_, GP_VALUE_TARGETS, &result, 1, Ownership::Result);
}

void Attention::finish(const c10::IValue& result) {
  c10::IValue value(result);
  if (wanted_ & GP_VALUE_ITEMS)
    handle_value(output_, GP_VALUE_ITEMS, &value, 1, Ownership::Result);
}

} // namespace graphpatch
