// Patches that text cannot express, through the C ABI: specs, values and kept tensors, all with libtorch's tensors.
#pragma once

#include "abi.h"

#include <ATen/ATen.h>
#include <ATen/DLConvertor.h>

#include <memory>

namespace abi {

class Value {
public:
    static Value text(const std::string& text) {
        return Value([&](gp_value** out) { return gp_value_text(text.c_str(), out); });
    }
    static Value number(double number) {
        return Value([&](gp_value** out) { return gp_value_float(number, out); });
    }
    // A copy of the tensor's numbers.
    static Value copy(const at::Tensor& tensor) {
        auto* managed = at::toDLPackVersioned(tensor.detach());
        return Value([&](gp_value** out) { return gp_value_dlpack(managed, true, out); });
    }
    // The tensor itself, gradients and all.
    static Value torch(const at::Tensor& tensor) {
        return Value([&](gp_value** out) { return gp_value_torch(tensor.unsafeGetTensorImpl(), out); });
    }
    const gp_value* raw() const { return raw_.get(); }

private:
    template <class Make>
    explicit Value(Make make) : raw_(nullptr, gp_value_free) {
        gp_value* raw = nullptr;
        check(make(&raw));
        raw_.reset(raw);
    }
    std::unique_ptr<gp_value, void (*)(gp_value*)> raw_;
};

class Spec {
public:
    explicit Spec(const std::string& path) : raw_(nullptr, gp_spec_free) {
        gp_spec* raw = nullptr;
        check(gp_spec_new(path.c_str(), &raw));
        raw_.reset(raw);
    }
    Spec& slice(const std::string& text) { return did(gp_spec_slice(raw_.get(), text.c_str())); }
    Spec& index(int64_t index) { return did(gp_spec_index(raw_.get(), index)); }
    Spec& index(const at::Tensor& tensor) { return did(gp_spec_index_tensor(raw_.get(), at::toDLPackVersioned(tensor), true)); }
    Spec& zero() { return did(gp_spec_zero(raw_.get())); }
    Spec& add(const Value& value) { return did(gp_spec_add(raw_.get(), value.raw())); }
    Spec& replace(const Value& value) { return did(gp_spec_replace(raw_.get(), value.raw())); }
    Spec& probe() { return did(gp_spec_probe(raw_.get())); }
    Spec& record(uint64_t limit) { return did(gp_spec_record(raw_.get(), limit)); }
    Spec& custom(gp_callback function, void* user) { return did(gp_spec_custom(raw_.get(), function, user)); }
    Spec& runs(const std::string& text) { return did(gp_spec_runs(raw_.get(), text.c_str())); }
    Spec& this_thread() { return did(gp_spec_this_thread(raw_.get(), true)); }
    uint64_t add_to(const Session& session) const {
        uint64_t id = 0;
        check(gp_patch_register(session.raw(), raw_.get(), &id));
        return id;
    }

private:
    Spec& did(gp_status status) {
        check(status);
        return *this;
    }
    std::unique_ptr<gp_spec, void (*)(gp_spec*)> raw_;
};

struct Kept {
    uint64_t count = 0, dropped = 0;
};

inline Kept kept(const Session& session, uint64_t id) {
    Kept kept;
    check(gp_kept_count(session.raw(), id, &kept.count, &kept.dropped));
    return kept;
}

inline at::Tensor kept_tensor(const Session& session, uint64_t id, uint64_t index = 0) {
    DLManagedTensorVersioned* managed = nullptr;
    check(gp_kept_tensor(session.raw(), id, index, &managed));
    return at::fromDLPackVersioned(managed);
}

inline gp_patch_counts counts(const Session& session, uint64_t id) {
    gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
    check(gp_patch_get_counts(session.raw(), id, &counts));
    return counts;
}

inline std::string last_error(const Session& session, uint64_t id) {
    char* text = nullptr;
    check(gp_patch_last_error(session.raw(), id, &text));
    std::string out(text);
    gp_string_free(text);
    return out;
}

}  // namespace abi
