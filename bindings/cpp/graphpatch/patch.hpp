// Registered patches, and what probes and records have kept.
#pragma once

#include "spec.hpp"

#include <exception>
#include <initializer_list>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

namespace detail {
// Patches that are removed, and what is to be said of those that no run has reached.
class Leaving {
public:
    // Called before the patch is removed.
    void add(const gp_session* session, uint64_t id, const std::string& name) noexcept {
        gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
        if (gp_patch_get_counts(session, id, &counts) != GP_STATUS_OK || counts.matched != 0) return;
        try {
            patches_.push_back({id, counts.pending != 0, name});
        } catch (...) {
            // No memory is left for a note.
        }
    }
    // Called when they are removed: adds to the session's notes that no run reached them. Adds nothing while an exception
    // propagates: the exception is the likely reason.
    void note(const gp_session* session) const noexcept {
        if (patches_.empty() || std::uncaught_exceptions() != 0) return;
        try {
            std::vector<std::string> missed, pending;
            for (const One& one : patches_) {
                gp_patch_counts now = GP_PATCH_COUNTS_INIT;
                const bool known = gp_patch_get_counts(session, one.id, &now) == GP_STATUS_OK;
                if (known ? now.matched != 0 : one.pending) continue; // a run has reached it meanwhile
                (now.pending ? pending : missed).push_back(one.name);
            }
            say(session, missed, " never matched: ", " never matched: ", ": no run came by there");
            say(session, pending, " has not matched yet: ", " have not matched yet: ",
                ": no run came by there so far, and runs that began before the removal are under way; Session::missed() tells "
                "when they have ended");
        } catch (...) {
            // No memory is left for a note.
        }
    }

private:
    struct One {
        uint64_t id;
        bool pending; // whether runs were under way that could reach it
        std::string name;
    };
    static void say(const gp_session* session, const std::vector<std::string>& names, const char* one, const char* several,
                    const char* end) {
        if (names.empty()) return;
        std::string note = names.size() == 1 ? std::string("a patch") + one : std::string("patches") + several;
        for (size_t i = 0; i < names.size(); ++i) note += (i == 0 ? "" : ", ") + names[i];
        gp_session_note(session, (note + end).c_str());
    }

    std::vector<One> patches_;
};
}  // namespace detail

// A patch that holds, for runs that begin from now on, as long as this lives. All calls may be made from any thread.
class Patch {
public:
    Patch(Patch&& other) noexcept
        : session_(std::move(other.session_)), id_(std::exchange(other.id_, 0)), name_(std::move(other.name_)) {}
    Patch& operator=(Patch&& other) noexcept {
        if (this != &other) {
            drop();
            session_ = std::move(other.session_);
            id_ = std::exchange(other.id_, 0);
            name_ = std::move(other.name_);
        }
        return *this;
    }
    ~Patch() { drop(); }

    // Removes the patch for runs that begin from now on, together with the values that it kept. A second call does nothing. If
    // no run reached the patch, the session's notes say so, and whether runs are under way that still may.
    void remove() { drop(); }
    // Lets the patch hold for the rest of the session. Session::missed tells whether no run reached it.
    void keep() noexcept { session_.reset(); }
    // Switches it off, or on again; it keeps its place among the others.
    void enable(bool on) { detail::check(gp_patch_enable(session_.get(), id_, on)); }
    // Gives an add or replace another value.
    void set_value(const Value& value) { detail::check(gp_patch_set_value(session_.get(), id_, value.get())); }

    // How often a run reached the node, and how often the patch changed the value there or failed to.
    gp_patch_counts counts() const {
        gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
        detail::check(gp_patch_get_counts(session_.get(), id_, &counts));
        return counts;
    }
    // Whether no run has reached the patch so far.
    bool missed() const { return counts().matched == 0; }
    // Why it failed last; empty if it never did.
    std::string last_error() const {
        return detail::text([&](char** out) { return gp_patch_last_error(session_.get(), id_, out); });
    }
    // The session's number for the patch; 0 after it was removed.
    uint64_t id() const noexcept { return id_; }

    // How many values a probe (0 or 1) or record has kept, how many came after a record's limit, and value number `index`.
    uint64_t kept() const { return kept_count().first; }
    uint64_t dropped() const { return kept_count().second; }
    Tensor value(uint64_t index = 0) const { return detail::tensor_of(array(index)); }
    // Value number `index` as an Array.
    Array array(uint64_t index = 0) const {
        DLManagedTensorVersioned* raw = nullptr;
        detail::check(gp_kept_tensor(session_.get(), id_, index, &raw));
        return Array(raw);
    }
    std::vector<Tensor> values() const {
        std::vector<Tensor> values;
        const uint64_t n = kept();
        for (uint64_t i = 0; i < n; ++i) values.push_back(value(i));
        return values;
    }

private:
    friend class Session;
    friend class PatchSet;
    Patch(std::shared_ptr<gp_session> session, uint64_t id, std::string name)
        : session_(std::move(session)), id_(id), name_(std::move(name)) {}

    std::pair<uint64_t, uint64_t> kept_count() const {
        std::pair<uint64_t, uint64_t> n;
        detail::check(gp_kept_count(session_.get(), id_, &n.first, &n.second));
        return n;
    }
    // Adds the name of this patch to `names` if no run reached it.
    void add_missed(std::vector<std::string>& names) const noexcept {
        gp_patch_counts counts = GP_PATCH_COUNTS_INIT;
        if (!session_ || gp_patch_get_counts(session_.get(), id_, &counts) != GP_STATUS_OK || counts.matched != 0) return;
        try {
            names.push_back(name_);
        } catch (...) {
            // No memory is left for a note.
        }
    }
    void drop() noexcept {
        if (session_) {
            detail::Leaving leaving;
            leaving.add(session_.get(), id_, name_);
            gp_patch_remove(session_.get(), id_);
            leaving.note(session_.get());
        }
        session_.reset();
        id_ = 0;
    }

    std::shared_ptr<gp_session> session_;
    uint64_t id_;
    // The name of the patch in notes: its path, or its whole text if it was made from text.
    std::string name_;
};

// A patch that keeps a copy of the last value.
class Probe : public Patch {
public:
    explicit Probe(Patch patch) : Patch(std::move(patch)) {}
    // Whether no value has been kept yet.
    bool empty() const { return kept() == 0; }
};

// A patch that keeps a copy of every value, in order.
class Record : public Patch {
public:
    explicit Record(Patch patch) : Patch(std::move(patch)) {}
    uint64_t size() const { return kept(); }
    bool empty() const { return size() == 0; }
    Tensor operator[](uint64_t index) const { return value(index); }
};

// Patches that hold together as long as this lives: a run begins with all of them or with none. An inner set comes after
// an outer one.
class PatchSet {
public:
    PatchSet(PatchSet&& other) noexcept = default;
    PatchSet& operator=(PatchSet&& other) noexcept {
        if (this != &other) {
            remove();
            patches_ = std::move(other.patches_);
        }
        return *this;
    }
    ~PatchSet() { remove(); }

    // Removes all of them together. A second call does nothing. If no run reached one of them, the session's notes say so.
    void remove() noexcept {
        std::vector<uint64_t> ids;
        detail::Leaving leaving;
        std::shared_ptr<gp_session> session;
        for (Patch& patch : patches_) {
            if (!patch.session_) continue;
            leaving.add(patch.session_.get(), patch.id_, patch.name_);
            session = std::move(patch.session_);
            ids.push_back(std::exchange(patch.id_, 0));
        }
        if (session) {
            gp_patch_remove_all(session.get(), ids.data(), ids.size());
            leaving.note(session.get());
        }
        patches_.clear();
    }
    // The names of the patches that no run has reached so far.
    std::vector<std::string> missed() const noexcept {
        std::vector<std::string> names;
        for (const Patch& patch : patches_) patch.add_missed(names);
        return names;
    }
    size_t size() const noexcept { return patches_.size(); }
    Patch& operator[](size_t index) { return patches_.at(index); }
    const Patch& operator[](size_t index) const { return patches_.at(index); }
    auto begin() noexcept { return patches_.begin(); }
    auto end() noexcept { return patches_.end(); }
    auto begin() const noexcept { return patches_.begin(); }
    auto end() const noexcept { return patches_.end(); }

private:
    friend class Session;
    explicit PatchSet(std::vector<Patch> patches) : patches_(std::move(patches)) {}

    std::vector<Patch> patches_;
};

} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
