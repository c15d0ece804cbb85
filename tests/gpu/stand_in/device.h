// CUDA devices for a libtorch without CUDA: tensors on them lie in the memory of the stand-in of a card (driver.h), and
// libtorch's own operations on them are those of the CPU, done in the order of the current stream. Include it once.
#pragma once

#include "driver.h"

#include <ATen/ATen.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <cstring>
#include <iterator>

namespace card {

// Streams and events as libtorch sees them.
class Streams final : public c10::impl::DeviceGuardImplInterface {
public:
  c10::DeviceType type() const override {
    return c10::kCUDA;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return {c10::kCUDA, current_device()};
  }
  void setDevice(c10::Device device) const override {
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index())
      current_device() = device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, ids()[static_cast<size_t>(device.index())]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    ids()[static_cast<size_t>(stream.device_index())] = stream.id();
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return 2;
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    if (!*event)
      *event = new bool;
    auto* done = static_cast<bool*>(*event);
    *done = false;
    add(of(stream), [done] { *done = true; });
  }
  void block(void*, const c10::Stream& stream) const override {
    note("stream " + std::to_string(stream.id()) + " waits");
  }
  bool queryEvent(void* event) const override {
    return *static_cast<bool*>(event);
  }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream& stream) const override {
    note("memory is used by stream " + std::to_string(stream.id()));
  }
  static void* of(const c10::Stream& stream) {
    return native(stream.device_index(), stream.id());
  }

private:
  static c10::DeviceIndex& current_device() {
    static thread_local c10::DeviceIndex device = 0;
    return device;
  }
  static std::array<int64_t, 2>& ids() {
    static thread_local std::array<int64_t, 2> ids{};
    return ids;
  }
};

namespace detail {

inline c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(device);
}

// The same memory as a tensor on the CPU.
inline at::Tensor on_cpu(const at::Tensor& tensor) {
  if (!tensor.is_cuda())
    return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

// The CPU's result as a tensor of the device: a view of an input if it shares memory with one, or else a copy.
inline at::Tensor on_card(const at::Tensor& result, c10::Device device, const std::vector<at::Tensor>& inputs) {
  for (const at::Tensor& input : inputs) {
    const auto* base = static_cast<const char*>(input.storage().data());
    const auto* first = static_cast<const char*>(result.const_data_ptr());
    if (base && first >= base && first < base + input.storage().nbytes()) {
      auto view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(input.storage()),
                                                           input.key_set(), result.dtype());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides());
      view.unsafeGetTensorImpl()->set_storage_offset((first - base) / static_cast<int64_t>(result.element_size()));
      return view;
    }
  }
  const auto bytes = static_cast<int64_t>(result.storage().nbytes());
  c10::DataPtr memory = c10::GetAllocator(c10::kCPU)->allocate(static_cast<size_t>(bytes));
  if (bytes)
    std::memcpy(memory.get(), result.storage().data(), static_cast<size_t>(bytes));
  memory.unsafe_set_device(device);
    // A graph replays into this memory, so it is never freed, even if nobody holds the tensors of the capture any more.
  if (is_captured(Streams::of(current_stream(device))))
    memory.release_context();
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(memory), c10::GetAllocator(c10::kCPU), true);
  const c10::DispatchKeySet keys{c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCUDA, c10::DispatchKey::ADInplaceOrView};
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, result.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides());
  made.unsafeGetTensorImpl()->set_storage_offset(result.storage_offset());
  return made;
}

// An operation on tensors of the device.
class Call {
public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : op_(op), stack_(stack), first_(stack->size() - op.schema().arguments().size()) {
    for (size_t at = first_; at < stack->size(); ++at)
      translate((*stack)[at]);
  }

  void run() {
    void* stream = Streams::of(current_stream(device_));
    finish(stream);
    const torch::jit::Stack arguments(stack_->begin() + static_cast<std::ptrdiff_t>(first_), stack_->end());
    torch::jit::Stack results = compute(op_, arguments);
    for (c10::IValue& result : results)
      result = back(result);
    if (is_captured(stream))
      again(stream, arguments, results);
    stack_->resize(first_);
    stack_->insert(stack_->end(), std::make_move_iterator(results.begin()), std::make_move_iterator(results.end()));
  }

private:
  static torch::jit::Stack compute(const c10::OperatorHandle& op, torch::jit::Stack stack) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
    return stack;
  }

  // Lets a replay compute the same again and copy it into the memory of today's results. The graph holds only that memory and
  // not the result tensors, so their reference counts are those that the library would see without a graph.
  void again(void* stream, const torch::jit::Stack& arguments, const torch::jit::Stack& results) const {
    std::vector<at::Tensor> memory;
    for (const c10::IValue& result : results) {
      const bool own = result.isTensor() && result.toTensor().defined() && result.toTensor().is_cuda();
      memory.push_back(own ? on_cpu(result.toTensor()) : at::Tensor());
    }
    add(stream, [op = op_, arguments, memory] {
      const at::NoGradGuard none;
      const torch::jit::Stack anew = compute(op, arguments);
      for (size_t at = 0; at < anew.size(); ++at)
        if (memory[at].defined() && memory[at].const_data_ptr() != anew[at].toTensor().const_data_ptr())
          memory[at].copy_(anew[at].toTensor());
    });
  }

  void translate(c10::IValue& value) {
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().is_cuda()) {
      device_ = value.toTensor().device();
      inputs_.push_back(value.toTensor());
      aliases_.push_back(on_cpu(value.toTensor()));
      value = aliases_.back();
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (c10::IValue element : value.toTensorVector()) {
        translate(element);
        tensors.push_back(element.toTensor());
      }
      value = c10::List<at::Tensor>(tensors);
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      device_ = value.toDevice().has_index() ? value.toDevice() : c10::Device(c10::kCUDA, 0);
      value = c10::Device(c10::kCPU);
    }
  }

  c10::IValue back(const c10::IValue& result) const {
    if (!result.isTensor() || !result.toTensor().defined())
      return result;
    const at::Tensor& tensor = result.toTensor();
    for (size_t at = 0; at < aliases_.size(); ++at)
      if (tensor.is_same(aliases_[at]))
        return inputs_[at];
    return on_card(tensor, device_, inputs_);
  }

  const c10::OperatorHandle& op_;
  torch::jit::Stack* stack_;
  size_t first_;
  std::vector<at::Tensor> inputs_, aliases_;
  c10::Device device_{c10::kCUDA, 0};
};

inline void compute_on_card(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call(op, stack).run();
}

// Copies between the host and the device, in either direction.
inline at::Tensor& copy(at::Tensor& self, const at::Tensor& from, bool) {
  const at::Tensor& there = self.is_cuda() ? self : from;
  void* stream = Streams::of(current_stream(there.device()));
  finish(stream);
  on_cpu(self).copy_(on_cpu(from));
  return self;
}

} // namespace detail

// Registers the devices with libtorch. Call it once, before anything else.
inline void plug_in() {
  static const Streams* streams = new Streams();
  c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::kCUDA)].store(streams);
  static auto* fallback = new torch::Library(torch::Library::IMPL, "_", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  fallback->fallback(torch::CppFunction::makeFromBoxedFunction<&detail::compute_on_card>());
  static auto* copies = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  copies->impl("copy_", detail::copy);
}

} // namespace card
