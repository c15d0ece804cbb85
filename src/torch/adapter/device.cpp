// CUDA values for the core: pointer, sizes, strides, dtype, device and libtorch's current stream. A libtorch without CUDA has
// no such values. No code of CUDA's is compiled or linked in.
#include "device.h"
#include "dlpack_abi.h"
#include "write.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <cstring>
#include <memory>

namespace graphpatch {

bool is_plain_cuda(const at::Tensor& tensor) {
  return is_plain(tensor) && tensor.device().is_cuda() && dtype_code(tensor.scalar_type()) != GP_DTYPE_OTHER;
}

// The cudaStream_t behind libtorch's current stream of a device, by a C++ method that all versions have so far, or by a C
// function of newer versions. Both are looked up in the library that is already loaded.
static bool native_stream(c10::Stream stream, void** out) {
  using Current = int32_t (*)(int32_t, void**);
  using Native = void* (*)(const c10::Stream*);
  static const auto find = [](const char* library, const char* symbol) -> void* {
    void* loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    return loaded ? dlsym(loaded, symbol) : nullptr; // stays open: the library is the process's own
  };
  // A CUDAStream has the layout of a Stream. Like every method, its stream() takes the object's address.
  static_assert(sizeof(c10::Stream) == 16, "c10::Stream has another layout than the one that is passed here");
  static const auto native = reinterpret_cast<Native>(find("libc10_cuda.so", "_ZNK3c104cuda10CUDAStream6streamEv"));
  static const auto current = reinterpret_cast<Current>(find("libtorch_cuda.so", "aoti_torch_get_current_cuda_stream"));
  if (native)
    *out = native(&stream);
  return native || (current && current(stream.device_index(), out) == 0);
}

static c10::Stream current_stream(const at::Tensor& tensor) {
  return c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(tensor.device());
}

// Whether work for the stream is captured into a graph instead of being done now.
static bool is_captured(c10::Stream stream) {
  void* native = nullptr;
  return native_stream(stream, &native) && core->is_capturing(native);
}

// Memory that is freed from here on is not used again before the present work of the current stream is done.
static void read_on_current_stream(const at::Tensor& tensor) {
  c10::impl::VirtualGuardImpl(c10::kCUDA).recordDataPtrOnStream(tensor.storage().data_ptr(), current_stream(tensor));
}

static bool describe(const at::Tensor& tensor, void* data, GpDeviceTensor& out) {
  const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
  out.tensor.data = data;
  out.tensor.sizes = tensor.sizes().data();
  out.tensor.strides = tensor.strides().data();
  out.tensor.rank = static_cast<uint32_t>(tensor.dim());
  out.tensor.dtype = dtype_code(tensor.scalar_type());
  out.device = tensor.device().index();
  return native_stream(cuda.getStream(tensor.device()), &out.stream);
}

// Whether more patches follow at the node, and whether some of them wait to be launched.
struct Waiting {
  bool more = false;
  bool some = false;
};
static Waiting& waiting() {
  static thread_local Waiting state;
  return state;
}

void expect_more(bool more) {
  waiting().more = more;
}

void flush_device() {
  if (std::exchange(waiting().some, false))
    verdict(core->flush_device());
}

FlushDevice::~FlushDevice() {
  waiting().more = false;
  if (std::exchange(waiting().some, false))
    core->flush_device();
}

uint32_t write_on_device(const GpTarget& target, const at::Tensor& tensor) {
  GpDeviceTensor view{}, value{};
  if (!describe(tensor, tensor.mutable_data_ptr(), view))
    return GP_ELSEWHERE;
  const GpDeviceTensor* given = nullptr;
  if (target.tensor && target.tensor->foreign) {
    const auto& other = *static_cast<const at::Tensor*>(target.tensor->foreign);
    // If the value lay in the tensor's own memory, it would be read while it is written.
    if (!is_plain_cuda(other) || other.device() != tensor.device() || other.is_alias_of(tensor) ||
        !describe(other, const_cast<void*>(other.const_data_ptr()), value))
      return GP_ELSEWHERE;
    // The patch may be removed, and the value freed, before the launch has run.
    read_on_current_stream(other);
    given = &value;
  }
  const uint32_t answer = core->apply_on_device(&target, &view, given, waiting().more);
  waiting().some = answer == GP_APPLIED && waiting().more;
  return answer;
}

// A copy on the device, and the event that marks when it is complete.
struct Kept {
  at::Tensor copy;
  c10::Event done{c10::kCUDA};
  bool marked = false;
};

void keep_on_device(const GpTarget& target, const at::Tensor& tensor) {
  auto kept = std::make_unique<Kept>();
  const std::string why = reason([&] {
    kept->copy = tensor.detach().clone(at::MemoryFormat::Contiguous);
    // During a capture, each replay will make the copy anew, and no event outside of the capture can wait for it.
    const c10::Stream stream = current_stream(tensor);
    void* native = nullptr;
    if (native_stream(stream, &native) && !core->is_capturing(native)) {
      kept->done.record(stream);
      kept->marked = true;
    }
  });
  if (!why.empty()) {
    verdict(elsewhere(target, why, &tensor));
    return;
  }
  GpKept given{};
  given.sizes = kept->copy.sizes().data();
  given.rank = static_cast<uint32_t>(kept->copy.dim());
  given.dtype = dtype_code(kept->copy.scalar_type());
  given.handle = kept.release();
  verdict(core->keep_on_device(&target, &given));
}

// Makes the reader's own stream wait for the copy. The host waits only when it reads.
static void wait_for(Kept& kept) {
  if (kept.marked)
    kept.done.block(current_stream(kept.copy));
}

GpStr kept_read(void* handle, void* bytes, size_t size) {
  auto& kept = *static_cast<Kept*>(handle);
  const auto read_it = [&] {
    TORCH_CHECK(
        !is_captured(current_stream(kept.copy)),
        "what a probe or record has kept cannot be read while the current stream is captured into a CUDA graph: read it "
        "behind the capture, or with another current stream");
    wait_for(kept);
    const at::Tensor read = kept.copy.to(c10::kCPU).contiguous();
    TORCH_CHECK(read.nbytes() == size, "a kept value of ", read.nbytes(), " bytes, expected ", size);
    if (size)
      std::memcpy(bytes, read.const_data_ptr(), size);
  };
  GpStr why = gp_str("there was no memory to read it with");
  without_exceptions([&] { why = answer(reason(read_it)); });
  return why;
}

// A DLPack tensor that holds a reference of its own. Its reader may read on the stream that is current when the tensor is lent,
// or on the stream that is current when the tensor is given back.
struct Lent {
  dlpack::Borrowed borrowed;

  explicit Lent(dlpack::Borrowed what) : borrowed(std::move(what)) {
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  ~Lent() {
    reason([&] { read_on_current_stream(borrowed.tensor); });
  }
};

void* kept_lend(void* handle) {
  auto& kept = *static_cast<Kept*>(handle);
  DlManagedTensor* out = nullptr;
  without_exceptions([&] {
    // The caller then asks for a copy in host memory, which is refused with a message.
    if (is_captured(current_stream(kept.copy)))
      return;
    wait_for(kept);
    read_on_current_stream(kept.copy);
    auto lent = std::make_unique<Lent>(dlpack::borrow(kept.copy));
    DlManagedTensor& managed = lent->borrowed.managed;
    managed.tensor.shape = lent->borrowed.sizes.data();
    managed.tensor.strides = lent->borrowed.strides.data();
    managed.context = lent.get();
    managed.deleter = [](DlManagedTensor* tensor) { delete static_cast<Lent*>(tensor->context); };
    out = &lent.release()->borrowed.managed;
  });
  return out;
}

void kept_free(void* kept) {
  delete static_cast<Kept*>(kept);
}

} // namespace graphpatch
