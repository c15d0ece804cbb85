// A tensor without libtorch: DLPack's versioned managed tensor, owned.
#pragma once

#include "error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {
namespace detail {

// DLPack's structures, with the names of its members. They are declared again here because the <dlpack/dlpack.h> of a program
// may be too old to have them. The version number at the beginning fixes the layout.
struct DLPack {
    struct {
        uint32_t major, minor;
    } version;
    void* manager_ctx;
    void (*deleter)(DLPack* self);
    uint64_t flags;
    struct {
        void* data;
        struct {
            int32_t device_type, device_id;
        } device;
        int32_t ndim;
        struct {
            uint8_t code, bits;
            uint16_t lanes;
        } dtype;
        int64_t* shape;
        int64_t* strides;
        uint64_t byte_offset;
    } dl_tensor;
};
constexpr uint64_t kReadOnly = 1;
constexpr int32_t kCpu = 1;

inline DLPack* layout_of(DLManagedTensorVersioned* tensor) { return reinterpret_cast<DLPack*>(tensor); }
inline DLManagedTensorVersioned* managed(DLPack* tensor) { return reinterpret_cast<DLManagedTensorVersioned*>(tensor); }

// DLPack's code of an element type: signed, unsigned, real, bool.
template <class T>
constexpr uint8_t code_of() {
    static_assert(std::is_arithmetic_v<T>, "an element is an integer, a float or a bool");
    if (std::is_same_v<T, bool>) return 6;
    if (std::is_floating_point_v<T>) return 2;
    return std::is_signed_v<T> ? 0 : 1;
}

}  // namespace detail

// A row-major tensor in CPU memory, or a tensor taken over from DLPack. An Array owns it, and is never copied implicitly.
class Array {
public:
    // A copy of `n` elements, of this shape.
    template <class T>
    Array(const T* elements, std::vector<int64_t> shape) : Array(sizeof(T), detail::code_of<T>(), std::move(shape)) {
        if (size() != 0) std::memcpy(raw_->dl_tensor.data, elements, size() * sizeof(T));
    }
    template <class T>
    Array(const std::vector<T>& elements, std::vector<int64_t> shape) : Array(elements.data(), std::move(shape)) {
        if (size() != elements.size())
            throw Error(GP_STATUS_ARGUMENT, "an array of " + std::to_string(size()) + " elements from a list of " +
                                                std::to_string(elements.size()));
    }
    // Takes over a tensor of DLPack's.
    explicit Array(DLManagedTensorVersioned* tensor) : raw_(detail::layout_of(tensor), drop) {}

    std::vector<int64_t> shape() const { return {sizes(), sizes() + raw_->dl_tensor.ndim}; }
    size_t size() const {
        size_t n = 1;
        for (int32_t d = 0; d < raw_->dl_tensor.ndim; ++d) n *= static_cast<size_t>(sizes()[d]);
        return n;
    }
    // DLPack's code and number of bits of an element.
    uint8_t dtype_code() const { return raw_->dl_tensor.dtype.code; }
    uint8_t dtype_bits() const { return raw_->dl_tensor.dtype.bits; }
    bool is_on_cpu() const { return raw_->dl_tensor.device.device_type == detail::kCpu; }

    // The elements in row-major order. GP_STATUS_REFUSED if they are of another type, on a device or strided.
    template <class T>
    const T* data() const {
        if (dtype_code() != detail::code_of<T>() || dtype_bits() != 8 * sizeof(T) || raw_->dl_tensor.dtype.lanes != 1)
            throw Error(GP_STATUS_REFUSED, "the array has elements of DLPack's type " + std::to_string(dtype_code()) +
                                               " with " + std::to_string(dtype_bits()) + " bits, not those asked for");
        if (!is_on_cpu()) throw Error(GP_STATUS_REFUSED, "the array is on a device: copy it to CPU memory first");
        if (!is_row_major()) throw Error(GP_STATUS_REFUSED, "the array is strided: make it row-major first");
        auto* bytes = static_cast<const char*>(raw_->dl_tensor.data) + raw_->dl_tensor.byte_offset;
        return reinterpret_cast<const T*>(bytes);
    }
    template <class T>
    std::vector<T> to_vector() const {
        const T* first = data<T>();
        return std::vector<T>(first, first + size());
    }

    // get() lends the tensor; release() hands it over, and the receiver calls its deleter.
    DLManagedTensorVersioned* get() const noexcept { return detail::managed(raw_.get()); }
    DLManagedTensorVersioned* release() noexcept { return detail::managed(raw_.release()); }

private:
    // The memory of an array that this class has made itself.
    struct Owned {
        detail::DLPack tensor;
        std::vector<int64_t> shape;
        std::vector<std::max_align_t> memory;
    };

    Array(size_t element, uint8_t code, std::vector<int64_t> shape) : raw_(nullptr, drop) {
        size_t n = element;
        for (int64_t size : shape) {
            if (size < 0) throw Error(GP_STATUS_ARGUMENT, "an array cannot have a size of " + std::to_string(size));
            n *= static_cast<size_t>(size);
        }
        auto owned = std::make_unique<Owned>();
        owned->shape = std::move(shape);
        owned->memory.resize(n / sizeof(std::max_align_t) + 1);
        detail::DLPack& tensor = owned->tensor;
        tensor = {};
        tensor.version = {1, 0};
        tensor.manager_ctx = owned.get();
        tensor.deleter = [](detail::DLPack* self) { delete static_cast<Owned*>(self->manager_ctx); };
        tensor.dl_tensor.data = owned->memory.data();
        tensor.dl_tensor.device = {detail::kCpu, 0};
        tensor.dl_tensor.ndim = static_cast<int32_t>(owned->shape.size());
        tensor.dl_tensor.dtype = {code, static_cast<uint8_t>(8 * element), 1};
        tensor.dl_tensor.shape = owned->shape.data();
        raw_.reset(&owned.release()->tensor);
    }

    static void drop(detail::DLPack* tensor) {
        if (tensor && tensor->deleter) tensor->deleter(tensor);
    }
    const int64_t* sizes() const { return raw_->dl_tensor.shape; }
    bool is_row_major() const {
        const int64_t* strides = raw_->dl_tensor.strides;
        int64_t expected = 1;
        for (int32_t d = raw_->dl_tensor.ndim; strides && d-- > 0; expected *= sizes()[d])
            if (sizes()[d] != 1 && strides[d] != expected) return false;
        return true;
    }

    std::unique_ptr<detail::DLPack, void (*)(detail::DLPack*)> raw_;
};

}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
