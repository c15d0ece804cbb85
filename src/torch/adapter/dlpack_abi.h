// Tensors across the C ABI: the versioned managed tensor of DLPack 1.0, as far as we use it. The layout is DLPack's.
#pragma once

#include "adapter.h"

#include <array>
#include <memory>
#include <vector>

extern "C" {
struct DlDevice {
  int32_t type; // 1: CPU, 2: CUDA
  int32_t index;
};

struct DlDtype {
  uint8_t code; // 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool, 10 to 13 the float8 kinds
  uint8_t bits;
  uint16_t lanes;
};

struct DlTensor {
  void* data;
  DlDevice device;
  int32_t rank;
  DlDtype dtype;
  int64_t* shape;
  int64_t* strides; // in elements; NULL: row-major
  uint64_t byte_offset;
};

struct DlManagedTensor {
  uint32_t major;
  uint32_t minor;
  void* context;
  void (*deleter)(DlManagedTensor*);
  uint64_t flags; // 1: read only
  DlTensor tensor;
};
}

namespace graphpatch::dlpack {

// A dtype with its numbers and names in libtorch, in the seam and in DLPack.
struct Kind {
  c10::ScalarType type;
  uint8_t seam;     // GpDtype
  const char* name; // libtorch's, without "torch."
  uint8_t code;     // DLPack's
  uint8_t bits;
};

// The one table of dtypes in the adapter: libtorch's type, the seam's number, libtorch's name, DLPack's code and bits. The
// frequent ones come first, since they are searched for from the front. A Rust test (seam/lent_tests.rs) compares it with
// the core's table.
#define GP_FOR_EACH_DTYPE(X)                                                                                                   \
  X(Float, GP_F32, "float32", 2, 32)                                                                                           \
  X(Half, GP_F16, "float16", 2, 16)                                                                                            \
  X(BFloat16, GP_BF16, "bfloat16", 4, 16)                                                                                      \
  X(Double, GP_F64, "float64", 2, 64)                                                                                          \
  X(Long, GP_I64, "int64", 0, 64)                                                                                              \
  X(Int, GP_I32, "int32", 0, 32)                                                                                               \
  X(Short, GP_I16, "int16", 0, 16)                                                                                             \
  X(Char, GP_I8, "int8", 0, 8)                                                                                                 \
  X(Byte, GP_U8, "uint8", 1, 8)                                                                                                \
  X(Bool, GP_BOOL8, "bool", 6, 8)                                                                                              \
  X(ComplexFloat, GP_C64, "complex64", 5, 64)                                                                                  \
  X(ComplexDouble, GP_C128, "complex128", 5, 128)                                                                              \
  X(ComplexHalf, GP_C32, "complex32", 5, 32)                                                                                   \
  X(UInt16, GP_U16, "uint16", 1, 16)                                                                                           \
  X(UInt32, GP_U32, "uint32", 1, 32)                                                                                           \
  X(UInt64, GP_U64, "uint64", 1, 64)                                                                                           \
  X(Float8_e4m3fn, GP_F8_E4M3FN, "float8_e4m3fn", 10, 8)                                                                       \
  X(Float8_e5m2, GP_F8_E5M2, "float8_e5m2", 12, 8)                                                                             \
  X(Float8_e4m3fnuz, GP_F8_E4M3FNUZ, "float8_e4m3fnuz", 11, 8)                                                                 \
  X(Float8_e5m2fnuz, GP_F8_E5M2FNUZ, "float8_e5m2fnuz", 13, 8)

#define GP_KIND(type, seam, name, code, bits) {c10::ScalarType::type, seam, name, code, bits},
constexpr Kind kKinds[] = {GP_FOR_EACH_DTYPE(GP_KIND)};
#undef GP_KIND

#define GP_CHECK_BITS(type, seam, name, code, bits)                                                                            \
  static_assert(sizeof(c10::impl::ScalarTypeToCPPTypeT<c10::ScalarType::type>) * 8 == bits,                                    \
                "libtorch's " name " is larger or smaller");
GP_FOR_EACH_DTYPE(GP_CHECK_BITS)
#undef GP_CHECK_BITS
static_assert(sizeof(kKinds) / sizeof(Kind) == GP_F8_E5M2FNUZ, "the seam has more dtypes, or fewer");

// NULL for a dtype that we do not know.
inline const Kind* find_kind(c10::ScalarType type) {
  constexpr size_t kTypes = static_cast<size_t>(c10::ScalarType::NumOptions);
  // By libtorch's number, since it is asked for at every recorded value.
  static constexpr auto kByType = [] {
    std::array<const Kind*, kTypes> all{};
    for (const Kind& known : kKinds)
      all[static_cast<size_t>(known.type)] = &known;
    return all;
  }();
  const size_t at = static_cast<size_t>(type);
  return at < kTypes ? kByType[at] : nullptr;
}

// A tensor lent to a function for the length of its call.
struct Borrowed {
  at::Tensor tensor;
  std::vector<int64_t> sizes, strides;
  DlManagedTensor managed{};
};

inline Borrowed borrow(const at::Tensor& tensor) {
  Borrowed out;
  out.tensor = tensor;
  out.sizes = tensor.sizes().vec();
  out.strides = tensor.strides().vec();
  const Kind* kind = find_kind(tensor.scalar_type());
  TORCH_CHECK(kind, "DLPack has no ", tensor.scalar_type());
  TORCH_CHECK(tensor.is_cpu() || tensor.is_cuda(), "a tensor on ", tensor.device(), " cannot be shown to a function");
  out.managed.major = 1;
  out.managed.flags = 1;
  DlTensor& dl = out.managed.tensor;
  dl.data = const_cast<void*>(tensor.const_data_ptr());
  dl.device = {tensor.is_cuda() ? 2 : 1, tensor.is_cuda() ? tensor.device().index() : 0};
  dl.rank = static_cast<int32_t>(tensor.dim());
  dl.dtype = {kind->code, kind->bits, 1};
  dl.shape = out.sizes.data();
  dl.strides = out.strides.data();
  return out;
}

// Takes over a tensor that a function has made. Its deleter is called when libtorch does not need it any more.
inline at::Tensor take(DlManagedTensor* made) {
  std::shared_ptr<DlManagedTensor> owner(made, [](DlManagedTensor* tensor) {
    if (tensor->deleter)
      tensor->deleter(tensor);
  });
  const DlTensor& dl = made->tensor;
  TORCH_CHECK(made->major == 1, "a DLPack tensor of version ", made->major, " came back, expected 1");
  TORCH_CHECK(dl.device.type == 1 || dl.device.type == 2, "a DLPack tensor on device type ", dl.device.type, " came back");
  const Kind* kind = nullptr;
  for (const Kind& known : kKinds)
    if (known.code == dl.dtype.code && known.bits == dl.dtype.bits && dl.dtype.lanes == 1)
      kind = &known;
  TORCH_CHECK(kind, "a DLPack tensor of dtype code ", int(dl.dtype.code), ", ", int(dl.dtype.bits), " bits came back");
  c10::IntArrayRef sizes(dl.shape, static_cast<size_t>(dl.rank));
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;)
    strides[d - 1] = strides[d] * sizes[d];
  if (dl.strides)
    strides.assign(dl.strides, dl.strides + dl.rank);
  auto options = at::TensorOptions(kind->type)
                     .device(dl.device.type == 2 ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(dl.device.index))
                                                 : c10::Device(c10::kCPU));
  void* data = static_cast<char*>(dl.data) + dl.byte_offset;
  return at::from_blob(data, sizes, strides, [owner](void*) {}, options);
}

} // namespace graphpatch::dlpack
