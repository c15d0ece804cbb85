// A function's own executor differentiates parts of it by TorchScript's formulas, while our plan leaves all of it to autograd.
// Values are the same; gradients may differ by rounding. Whether a gradient is asked for is known only when it arrives, so the
// note is made then.
#include "gradients.h"
#include "write.h"

#include <ATen/SequenceNumber.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>
#include <utility>

namespace graphpatch {

void begin_gradients() {
  if (at::GradMode::is_enabled())
    has_memory_for([] { held().history = at::sequence_number::peek(); });
}

static void watch_tensor(const at::Tensor& tensor, const std::string& function) {
  if (!tensor.requires_grad())
    return;
  // A leaf, or a tensor that the caller has computed, is not a result of the function.
  const auto node = tensor.grad_fn();
  if (!node || node->sequence_nr() < held().history)
    return;
  tensor.register_hook([function](const at::Tensor&) {
    has_memory_for([&] {
      const std::string note = function + ": a gradient came back through it; " + kOtherFormulas;
      core->note(gp_str(note));
    });
  });
}

void watch_gradients(const c10::IValue& result, const std::string& function) {
  if (at::GradMode::is_enabled())
    has_memory_for([&] { for_each_tensor(result, [&](const at::Tensor& tensor) { watch_tensor(tensor, function); }); });
}

// ---- functions of C++ with a backward of their own ----
//
// torch::autograd::Function makes its node first, then computes its forward without history, and then gives the node to the
// results. So if a tensor appeared after a patch, and its node is older than the patch, the tensor came out of a function
// inside of which the patch was applied. Autograd counts the nodes of a thread, which tells older from younger.

struct WithoutHistory {
  struct Patch {
    uint64_t node; // the first node that is made after the patch
    std::string text;
    bool raises;
  };
  struct Value {
    WeakTensor tensor;
    uint64_t node; // the tensor's node when it appeared: an operand that was written into has one already
    size_t patches; // how many were applied before
  };
  std::vector<Patch> patches;
  std::vector<Value> values;
  // Scopes whose operations are still intercepted only for this purpose.
  std::vector<uint32_t> scopes;
  // Where autograd is never on, a run may go on without end. When there are this many values, those that are gone are dropped.
  size_t most = 1024;
};

Held::Held() = default;
Held::~Held() = default;

constexpr uint64_t kNoNode = UINT64_MAX;

// libtorch holds nodes by pointers of another type from 2.15 on.
static auto node_of(const at::Tensor& tensor) {
  using Held = std::decay_t<decltype(tensor.grad_fn())>;
  return tensor.requires_grad() ? Held(tensor.grad_fn()) : Held();
}

void patched_without_history(const GpTarget& target, const at::Tensor& tensor) {
  // A thread that has made no node is in no such function, nor is one whose Python reports these functions itself.
  const uint64_t next = at::sequence_number::peek();
  if (at::GradMode::is_enabled() || !next || has_own_backward() || tensor.is_inference() ||
      !(tensor.is_floating_point() || tensor.is_complex()))
    return;
  auto& apart = held().without_history;
  if (!apart)
    apart = std::make_unique<WithoutHistory>();
  const std::string text = to_string(target.text);
  auto& known = apart->patches;
  const auto same = [&](const WithoutHistory::Patch& patch) { return patch.node == next && patch.text == text; };
  if (std::none_of(known.begin(), known.end(), same))
    known.push_back({next, text, target.raises != 0});
}

bool loses_history(uint64_t& noted) {
  const uint64_t next = at::sequence_number::peek();
  return !at::GradMode::is_enabled() && std::exchange(noted, next) != next;
}

void watch_rest_of_scope() {
  if (!this_thread().held || !held().without_history)
    return;
  if (has_memory_for([] { held().without_history->scopes.push_back(this_thread().frame); }))
    rearm();
}

bool watches_scope() {
  const GpThread& thread = this_thread();
  if (!thread.held || !held().without_history)
    return false;
  const auto& scopes = held().without_history->scopes;
  return std::find(scopes.begin(), scopes.end(), thread.frame) != scopes.end();
}

void forget_history(Held& held, const void* tensor) {
  if (held.without_history)
    keep_if(held.without_history->values,
            [&](const WithoutHistory::Value& value) { return value.tensor._unsafe_get_target() != tensor; });
}

static void note_values(const c10::IValue* values, size_t n) {
  auto& apart = *held().without_history;
  auto& known = apart.values;
  size_t& most = apart.most;
  if (known.size() >= most) {
    keep_if(known, [](const WithoutHistory::Value& value) { return !value.tensor.expired(); });
    most = std::max(most, 2 * known.size());
  }
  const auto add = [&known, before = apart.patches.size()](const at::Tensor& tensor) {
    if (!tensor.defined())
      return;
    const auto node = node_of(tensor);
    known.push_back({WeakTensor(tensor.getIntrusivePtr()), node ? node->sequence_nr() : kNoNode, before});
  };
  for (size_t i = 0; i < n; ++i) {
    if (values[i].isTensor())
      add(values[i].toTensor());
    else if (values[i].isTensorList())
      for (const at::Tensor& tensor : values[i].toTensorVector())
        add(tensor);
  }
}

void came_to_be(const c10::IValue* values, size_t n) {
  if (this_thread().held && held().without_history)
    has_memory_for([&] { note_values(values, n); });
}

static void refuse(const at::Tensor& tensor, const WithoutHistory::Patch& patch) {
  tensor.register_hook([text = patch.text, raises = patch.raises](const at::Tensor&) {
    has_memory_for([&] {
      const std::string why = "graphpatch: patch \"" + text + "\" has no part in a gradient: " + kLosesGradient;
      core->note(gp_str(why));
      TORCH_CHECK(!raises, why);
    });
  });
}

static void refuse_all(const WithoutHistory& apart) {
  for (const WithoutHistory::Value& value : apart.values) {
    const auto impl = value.tensor.lock();
    if (!impl)
      continue;
    const at::Tensor tensor(impl);
    const auto node = node_of(tensor);
    // Python reports its functions itself. A checkpoint is such a function, and it computes its forward again, with the patch.
    if (!node || node->sequence_nr() == value.node || node->name().find("CppNode") == std::string::npos)
      continue;
    for (size_t i = 0; i < value.patches; ++i)
      if (node->sequence_nr() < apart.patches[i].node)
        refuse(tensor, apart.patches[i]);
  }
}

void refuse_gradients(Held& held) {
  if (!held.without_history)
    return;
  const auto apart = std::move(held.without_history);
  has_memory_for([&] { refuse_all(*apart); });
}

} // namespace graphpatch
