// The values of add and replace patches and of probes: numbers and tensors.
#pragma once

#include "array.hpp"

#if GRAPHPATCH_TORCH
#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#endif

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

#if GRAPHPATCH_TORCH
using Tensor = at::Tensor;
#else
using Tensor = Array;
#endif

// A number or a tensor. It may be copied, and used any number of times and on any thread.
class Value {
public:
    template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
    Value(T number) : raw_(of_number(number)) {}
#if GRAPHPATCH_TORCH
    // The tensor itself, on any device; gradients flow to it if it requires them. GP_STATUS_TORCH before any session attached.
    Value(const at::Tensor& tensor)
        : raw_(detail::made<gp_value>(
              [&](gp_value** out) { return gp_value_torch(tensor.defined() ? tensor.unsafeGetTensorImpl() : nullptr, out); },
              gp_value_free)) {}
#endif
    // A copy of the array.
    Value(const Array& array)
        : raw_(detail::made<gp_value>([&](gp_value** out) { return gp_value_dlpack(array.get(), false, out); },
                                      gp_value_free)) {}
    // From text, as a patch's text has it: "3", "-0.5", "1+2j", or a tensor in a file, which is read now: "@FILE.npy",
    // "@FILE.safetensors#KEY", "@FILE.gguf#NAME", "@FILE.pt" or "@FILE.pt#KEY".
    static Value text(const std::string& text) {
        return Value(detail::made<gp_value>([&](gp_value** out) { return gp_value_text(text.c_str(), out); }, gp_value_free));
    }
    const gp_value* get() const noexcept { return raw_.get(); }

private:
    explicit Value(std::shared_ptr<gp_value> raw) : raw_(std::move(raw)) {}

    template <class T>
    static std::shared_ptr<gp_value> of_number(T number) {
        return detail::made<gp_value>(
            [&](gp_value** out) {
                if constexpr (std::is_same_v<T, bool>) return gp_value_text(number ? "true" : "false", out);
                else if constexpr (std::is_floating_point_v<T>) return gp_value_float(static_cast<double>(number), out);
                else return gp_value_int(static_cast<int64_t>(number), out);
            },
            gp_value_free);
    }

    std::shared_ptr<gp_value> raw_;
};

namespace detail {

#if GRAPHPATCH_TORCH
// libtorch's name of DLPack's element type.
inline at::ScalarType scalar_type(uint8_t code, uint8_t bits) {
    struct Known {
        uint8_t code, bits;
        at::ScalarType type;
    };
    static constexpr Known kKnown[] = {{0, 8, at::kChar},
                                       {0, 16, at::kShort},
                                       {0, 32, at::kInt},
                                       {0, 64, at::kLong},
                                       {1, 8, at::kByte},
                                       {1, 16, at::kUInt16},
                                       {1, 32, at::kUInt32},
                                       {1, 64, at::kUInt64},
                                       {2, 16, at::kHalf},
                                       {2, 32, at::kFloat},
                                       {2, 64, at::kDouble},
                                       {4, 16, at::kBFloat16},
                                       {5, 32, at::kComplexHalf},
                                       {5, 64, at::kComplexFloat},
                                       {5, 128, at::kComplexDouble},
                                       {6, 8, at::kBool},
                                       {10, 8, at::kFloat8_e4m3fn},
                                       {11, 8, at::kFloat8_e4m3fnuz},
                                       {12, 8, at::kFloat8_e5m2},
                                       {13, 8, at::kFloat8_e5m2fnuz}};
    for (const Known& known : kKnown)
        if (known.code == code && known.bits == bits) return known.type;
    throw Error(GP_STATUS_REFUSED,
                "libtorch has no dtype for DLPack's type " + std::to_string(code) + " with " + std::to_string(bits) + " bits");
}

// Converts an array to a tensor of libtorch, which then owns the memory; a read-only array is copied. libtorch's own function
// is not used because libtorch 2.4 has none for versioned tensors.
inline Tensor tensor_of(Array array) {
    auto* raw = layout_of(array.get());
    const auto& tensor = raw->dl_tensor;
    const at::Device device = tensor.device.device_type == kCpu
                                  ? at::Device(at::kCPU)
                                  : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(tensor.device.device_id));
    const auto options = at::TensorOptions().dtype(scalar_type(tensor.dtype.code, tensor.dtype.bits)).device(device);
    const at::IntArrayRef sizes(tensor.shape, static_cast<size_t>(tensor.ndim));
    void* data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    auto owner = std::make_shared<Array>(std::move(array));
    const auto release = [owner](void*) mutable { owner.reset(); };
    const at::Tensor made = tensor.strides
                                ? at::from_blob(data, sizes, at::IntArrayRef(tensor.strides, sizes.size()), release, options)
                                : at::from_blob(data, sizes, release, options);
    return raw->flags & kReadOnly ? made.clone() : made;
}

// The tensor whose at::TensorImpl is at an address that the library gave.
inline at::Tensor tensor_at(const void* impl) {
    auto* tensor = static_cast<c10::TensorImpl*>(const_cast<void*>(impl));
    return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(tensor));
}

inline const void* address_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.unsafeGetTensorImpl() : nullptr; }

// A copy of a tensor of indices.
inline Array array_of(const at::Tensor& indices) {
    const at::Tensor plain = indices.detach().to(at::kCPU).contiguous();
    switch (plain.scalar_type()) {
        case at::kLong: return Array(plain.const_data_ptr<int64_t>(), plain.sizes().vec());
        case at::kInt: return Array(plain.const_data_ptr<int32_t>(), plain.sizes().vec());
        case at::kBool: return Array(plain.const_data_ptr<bool>(), plain.sizes().vec());
        case at::kByte: return Array(plain.const_data_ptr<uint8_t>(), plain.sizes().vec());
        default:
            throw Error(GP_STATUS_REFUSED, std::string("a tensor of ") + c10::toString(plain.scalar_type()) +
                                               " is no index: give int32 or int64 indices, or a bool or uint8 mask");
    }
}
#else
inline Tensor tensor_of(Array array) { return array; }
inline const Array& array_of(const Array& indices) { return indices; }
#endif

} // namespace detail
} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
