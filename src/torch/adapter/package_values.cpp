// What a call of a compiled model has computed. The model's memory is reused by later calls, so values are read and patched
// right behind the call that computes them, where they lie.
#include "package.h"
#include "write.h"

#include <ATen/TensorUtils.h>
#include <ATen/core/grad_mode.h>

namespace graphpatch::packages {

Running::Running(const Inside& inside, const std::vector<AtenTensorHandle>& inputs)
    : inside_(inside), before_(std::exchange(running, nullptr)) {
  for (AtenTensorHandle handle : inputs)
    inputs_.push_back(reinterpret_cast<at::Tensor*>(handle)->sizes().vec());
  running = this;
}

Running::~Running() {
  running = before_;
}

void Running::end() {
  running = before_;
  if (thrown_)
    std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void Running::called(uint16_t hook, uint64_t result, const Arguments& arguments) {
  if (lost_)
    return;
  const GpPackage& package = *inside_.package;
  while (next_ < package.n_calls && inside_.hooks[next_] == kNoHook)
    ++next_;
  if (next_ == package.n_calls || inside_.hooks[next_] != hook) {
    lost_ = true;
    core->note(gp_str("a model that AOTInductor has compiled makes other calls than its source says: from there on, nothing of "
                      "that run was seen"));
    return;
  }
  const GpCall& call = package.calls[next_++];
  // Functions of libtorch's answer 0 unless they have failed; a kernel answers nothing.
  const bool failed = call.n_outputs && call.outputs[0].how != GP_HOW_DATA && static_cast<int32_t>(result) != 0;
  if (!failed) {
    running = nullptr; // a patch may call anything
    try {
      has_memory_for([&] { show(call, arguments); });
    } catch (...) {
      // The model's code turns exceptions into others, so this one is thrown when the model has ended.
      thrown_ = std::current_exception();
      lost_ = true;
    }
    running = this;
  }
  asked_.clear();
}

void Running::show(const GpCall& call, const Arguments& arguments) {
  std::vector<c10::IValue> outputs;
  GpToken token;
  for (size_t i = 0; i < call.n_nodes; ++i) {
    const GpNode& node = call.nodes[i];
    const uint32_t wanted = core->computed(&node, &token);
    if (!wanted)
      continue;
    if (outputs.empty())
      for (size_t at = 0; at < call.n_outputs; ++at)
        outputs.emplace_back(output(call.outputs[at], arguments));
    show_node(node, token, wanted, outputs);
  }
}

// The tensor that an output is. Undefined if it cannot be told which one.
at::Tensor Running::output(const GpOutput& output, const Arguments& arguments) const {
  const uint64_t word = arguments.at(output.position);
  if (output.how == GP_HOW_HANDLE)
    return *reinterpret_cast<at::Tensor*>(word);
  if (output.how == GP_HOW_RESULT) {
    // A variable of the caller's, so it lies above this function's, on the same stack.
    const auto here = reinterpret_cast<uintptr_t>(&word);
    constexpr uintptr_t kFar = 16 << 20;
    if (word <= here || word - here > kFar || word % alignof(void*))
      return at::Tensor();
    const at::Tensor* tensor = *reinterpret_cast<at::Tensor* const*>(word);
    return tensor ? *tensor : at::Tensor();
  }
  const at::Tensor* found = nullptr;
  for (const Asked& asked : asked_) {
    if (asked.data != reinterpret_cast<void*>(word))
      continue;
    if (found && (found->sizes() != asked.tensor.sizes() || found->strides() != asked.tensor.strides()))
      return at::Tensor();
    found = &asked.tensor;
  }
  return found ? *found : at::Tensor();
}

// Makes the tensor the view of it that the value is. Returns false if it has none with the value's sizes.
bool Running::reshape(const GpNode& node, at::Tensor& tensor) const {
  if (!node.reshaped)
    return true;
  std::vector<int64_t> sizes;
  int64_t elements = 1;
  for (size_t i = 0; i < node.rank; ++i) {
    int64_t size = node.sizes[i];
    if (size < 0) {
      const auto input = static_cast<size_t>((-1 - size) / 64), dimension = static_cast<size_t>((-1 - size) % 64);
      if (input >= inputs_.size() || dimension >= inputs_[input].size())
        return false;
      size = inputs_[input][dimension];
    }
    sizes.push_back(size);
    elements *= size;
  }
  if (elements != tensor.numel())
    return false;
  if (node.order) {
    if (!tensor.is_non_overlapping_and_dense())
      return false;
    std::vector<int64_t> strides(node.rank);
    int64_t stride = 1;
    for (size_t i = node.rank; i-- > 0;) {
      strides[node.order[i]] = stride;
      stride *= sizes[node.order[i]];
    }
    tensor = tensor.as_strided(sizes, strides);
    return true;
  }
  if (!at::detail::computeStride(tensor.sizes(), tensor.strides(), at::IntArrayRef(sizes)))
    return false;
  tensor = tensor.view(sizes);
  return true;
}

static void refuse(const GpToken& token, uint32_t wanted, const std::string& why) {
  if (wanted & GP_VALUE_TARGETS) {
    Targets targets;
    targets.size = core->value_targets(&token, &targets.owner, &targets.data);
    for (size_t i = 0; i < targets.size; ++i)
      if (!targets.data[i].tensors) // a pattern means values that are there
        verdict(elsewhere(targets.data[i], why, nullptr));
  }
  if (wanted & GP_VALUE_ITEMS) {
    GpItem item{};
    item.tag = GP_OTHER;
    item.text = gp_str(why);
    core->value_items(&token, &item, 1);
  }
}

void Running::show_node(const GpNode& node, const GpToken& token, uint32_t wanted,
                        const std::vector<c10::IValue>& outputs) const {
  if (node.shows == GP_SHOWS_NOTHING)
    return refuse(token, wanted, to_string(node.text));
  const at::NoGradGuard outside_autograd;
  std::vector<c10::IValue> values;
  if (node.shows == GP_SHOWS_ALL) {
    values = outputs;
  } else {
    at::Tensor tensor = outputs[node.output].toTensor();
    if (!tensor.defined() || !reshape(node, tensor))
      return refuse(token, wanted, "value whose shape in this run its package does not tell");
    values.emplace_back(std::move(tensor));
  }
  for (const c10::IValue& value : values)
    if (!value.toTensor().defined())
      return refuse(token, wanted, "value that cannot be told from others at the same place");
  handle_value(token, wanted, values.data(), values.size(), Ownership::InPlace);
}

} // namespace graphpatch::packages
