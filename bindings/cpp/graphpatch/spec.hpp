// Descriptions of patches: zero, add, replace, custom, probe, record.
#pragma once

#include "value.hpp"

#include <exception>
#include <functional>
#include <optional>
#include <variant>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

#if GRAPHPATCH_TORCH
// Computes a new value from the value at a node; gradients flow through it. The tensor is the model's own (or a part of it) and
// must not be written in place. A plain number is passed and returned as a tensor without dimensions, and None is passed as an
// undefined tensor. An undefined result leaves the value alone. The function is called on the thread that runs the model,
// perhaps on several threads at once. If it throws, the patch has failed, with that message.
using Function = std::function<at::Tensor(const at::Tensor&)>;
#else
// Computes a new value from the value at a node, or returns nothing to leave it alone. The array is borrowed for the call,
// read-only, and perhaps strided or on a device. The function is called on the thread that runs the model, perhaps on several
// threads at once. If it throws, the patch has failed, with that message.
using Function = std::function<std::optional<Array>(const Array&)>;
#endif

// A patch that is not registered yet: a path, a part of the value there, what to do with it, and when. It is a plain value:
// it may be copied, and registered any number of times. Text in it is parsed when it is registered.
class Spec {
public:
    // Appends the items of `slice` to the index, for example "[3, ::2]".
    Spec slice(std::string slice) && { return with(std::move(slice)); }
    // Appends an integer to the index; negative ones count from the end.
    Spec index(int64_t index) && { return with(index); }
    // Appends a tensor to the index: integer indices, or a bool mask.
    Spec index(Tensor indices) && { return with(shared(std::move(indices))); }
    // Holds for these runs of its root only, counted from 0: "3", "2..", "0..4" (without 4).
    Spec runs(std::string runs) && {
        runs_ = std::move(runs);
        return std::move(*this);
    }
    // Holds for runs on the thread that registers it only.
    Spec this_thread() && {
        this_thread_ = true;
        return std::move(*this);
    }
    // Can be switched and changed in CUDA graphs that were captured with it.
    Spec live() && {
        live_ = true;
        return std::move(*this);
    }
    // A probe's or record's copies of CUDA values stay on their device.
    Spec keep_on_device() && {
        keep_on_device_ = true;
        return std::move(*this);
    }
    const std::string& path() const noexcept { return path_; }

private:
    friend Spec zero(std::string path);
    friend Spec add(std::string path, Value value);
    friend Spec replace(std::string path, Value value);
    friend Spec custom(std::string path, Function function);
    friend Spec probe(std::string path);
    friend Spec record(std::string path, uint64_t limit);
    friend class Session;

    using Action = std::function<void(gp_spec*)>;
    using Pick = std::variant<std::string, int64_t, std::shared_ptr<Tensor>>;

    Spec(std::string path, Action action) : path_(std::move(path)), action_(std::move(action)) {}

    static std::shared_ptr<Tensor> shared(Tensor tensor) { return std::make_shared<Tensor>(std::move(tensor)); }
    Spec with(Pick pick) {
        picks_.push_back(std::move(pick));
        return std::move(*this);
    }
    static void add_pick(gp_spec* spec, const Pick& pick);
    // The same description as a gp_spec of the C ABI.
    std::shared_ptr<gp_spec> make() const {
        auto spec = detail::made<gp_spec>([&](gp_spec** out) { return gp_spec_new(path_.c_str(), out); }, gp_spec_free);
        action_(spec.get());
        for (const Pick& pick : picks_) add_pick(spec.get(), pick);
        if (!runs_.empty()) detail::check(gp_spec_runs(spec.get(), runs_.c_str()));
        detail::check(gp_spec_this_thread(spec.get(), this_thread_));
        if (live_) detail::check(gp_spec_live(spec.get(), true));
        if (keep_on_device_) detail::check(gp_spec_keep_on_device(spec.get(), true));
        return spec;
    }

    std::string path_, runs_;
    Action action_;
    std::vector<Pick> picks_;
    bool this_thread_ = false, live_ = false, keep_on_device_ = false;
};

namespace detail {

// Calls a function of the user's. No exception leaves it: the exception's text becomes the message of the patch.
template <class Body>
int32_t guarded(Body body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::exception& error) {
        return gp_callback_fail(error.what());
    } catch (...) {
        return gp_callback_fail("something that is no std::exception was thrown");
    }
}

#if GRAPHPATCH_TORCH
inline int32_t call_function(void* user, const void* tensor, const void** replacement) noexcept {
    // The result must live until this function has returned, because the library takes its own reference only then.
    static thread_local at::Tensor held;
    return guarded([&] {
        const at::Tensor value = tensor ? tensor_at(tensor) : at::Tensor();
        const bool versioned = value.defined() && !value.is_inference();
        const int64_t version = versioned ? value._version() : 0;
        held = (*static_cast<const Function*>(user))(value);
        if (versioned && value._version() != version)
            throw std::logic_error("it wrote into the value in place; clone() it first");
        if (held.defined() && !held.is_same(value)) *replacement = held.unsafeGetTensorImpl();
    });
}
#else
inline int32_t call_function(void* user, DLManagedTensorVersioned* tensor, DLManagedTensorVersioned** replacement) noexcept {
    return guarded([&] {
        // The library only lends the tensor, so that the Array must not call its deleter.
        DLPack lent = *layout_of(tensor);
        lent.deleter = nullptr;
        std::optional<Array> made = (*static_cast<const Function*>(user))(Array(managed(&lent)));
        if (made) *replacement = made->release();
    });
}
#endif

} // namespace detail

// Sets the value at `path`, or the slice of it, to 0.
inline Spec zero(std::string path) {
    return Spec(std::move(path), [](gp_spec* spec) { detail::check(gp_spec_zero(spec)); });
}
// Adds `value` to the value at `path`.
inline Spec add(std::string path, Value value) {
    return Spec(std::move(path), [value = std::move(value)](gp_spec* spec) { detail::check(gp_spec_add(spec, value.get())); });
}
// Puts `value` in the place of the value at `path`.
inline Spec replace(std::string path, Value value) {
    return Spec(std::move(path),
                [value = std::move(value)](gp_spec* spec) { detail::check(gp_spec_replace(spec, value.get())); });
}
// Replaces the value at `path` by the result of `function`. The function is kept as long as a run may still call it.
inline Spec custom(std::string path, Function function) {
    auto shared = std::make_shared<Function>(std::move(function));
    return Spec(std::move(path), [shared](gp_spec* spec) {
        if (!*shared) throw Error(GP_STATUS_ARGUMENT, "the function of a patch is empty");
        auto own = std::make_unique<Function>(*shared);
#if GRAPHPATCH_TORCH
        detail::check(gp_spec_custom_torch(spec, detail::call_function, own.get()));
#else
        detail::check(gp_spec_custom(spec, detail::call_function, own.get()));
#endif
        detail::check(gp_spec_release(spec, [](void* user) { delete static_cast<Function*>(user); }));
        own.release();
    });
}
// Keeps a copy of the last value at `path`.
inline Spec probe(std::string path) {
    return Spec(std::move(path), [](gp_spec* spec) { detail::check(gp_spec_probe(spec)); });
}
// Keeps a copy of every value at `path`, in order; only the first `limit` values unless `limit` is 0.
inline Spec record(std::string path, uint64_t limit = 0) {
    return Spec(std::move(path), [limit](gp_spec* spec) { detail::check(gp_spec_record(spec, limit)); });
}

inline void Spec::add_pick(gp_spec* spec, const Pick& pick) {
    if (const auto* slice = std::get_if<std::string>(&pick)) {
        detail::check(gp_spec_slice(spec, slice->c_str()));
    } else if (const auto* index = std::get_if<int64_t>(&pick)) {
        detail::check(gp_spec_index(spec, *index));
    } else {
        const Array& array = detail::array_of(*std::get<std::shared_ptr<Tensor>>(pick));
        detail::check(gp_spec_index_tensor(spec, array.get(), false));
    }
}

} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
