// A session: it records graphs of runs and holds patches of them.
#pragma once

#include "graph.hpp"
#include "patch.hpp"

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// Recording is on as long as this object lives.
class Recording {
public:
    Recording(Recording&& other) noexcept = default;
    Recording& operator=(Recording&&) = delete;
    ~Recording() {
        if (session_) gp_session_record(session_.get(), false);
    }

private:
    friend class Session;
    explicit Recording(std::shared_ptr<gp_session> session) : session_(std::move(session)) {}
    std::shared_ptr<gp_session> session_;
};

// The session ends when this object is destroyed, and its patches end with it. Runs that other threads have begun before keep
// the patches that they began with.
// All calls may be made from any thread.
class Session {
public:
    // Attached to this process's libtorch, which must be loaded: all runs belong to it. The first time on a machine the
    // library compiles its adapter for that libtorch (about half a minute). GP_STATUS_TORCH without libtorch,
    // GP_STATUS_ADAPTER without an adapter, GP_STATUS_STATE when another session is attached. Under `graphpatch run` the
    // command sees only the runs that this session does not use.
    Session() : Session(nullptr) { detail::check(gp_session_attach(raw_.get())); }
    // A session that is not attached to libtorch.
    static Session detached() { return Session(nullptr); }

    Session(Session&&) noexcept = default;
    Session& operator=(Session&& other) noexcept {
        if (this != &other) {
            end();
            raw_ = std::move(other.raw_);
        }
        return *this;
    }
    ~Session() { end(); }

    void attach() { detail::check(gp_session_attach(raw_.get())); }
    void detach() { detail::check(gp_session_detach(raw_.get())); }
    // Whether runs that begin from now on are recorded into graphs().
    void set_recording(bool on) { detail::check(gp_session_record(raw_.get(), on)); }
    // Switches recording on. It is switched off when the returned object is destroyed.
    [[nodiscard]] Recording recording() {
        set_recording(true);
        return Recording(raw_);
    }
    // Whether runs that begin from now on show the inside of this operation ("attention") in their graphs.
    void show_inside(const std::string& operation, bool on = true) {
        detail::check(gp_session_inside(raw_.get(), operation.c_str(), on));
    }
    // What patches that cannot be applied do, for runs that begin from now on; GP_ON_ERROR_RAISE at first.
    void on_error(gp_on_error on_error) { detail::check(gp_session_on_error(raw_.get(), on_error)); }

    // What was recorded so far.
    Graphs graphs() const {
        gp_graphs* raw = nullptr;
        detail::check(gp_session_graphs(raw_.get(), &raw));
        return Graphs(raw);
    }
    // How many runs were recorded or patched so far.
    uint64_t runs() const {
        uint64_t runs = 0;
        detail::check(gp_session_runs(raw_.get(), &runs));
        return runs;
    }
    // Messages about the runs so far that a person should read.
    std::vector<std::string> notes() const {
        return detail::lines(detail::text([&](char** out) { return gp_session_notes(raw_.get(), out); }));
    }

    // The patches that no run has reached so far, as text: those that were removed and those that hold, including kept ones.
    std::vector<std::string> missed() const {
        return detail::lines(detail::text([&](char** out) { return gp_session_missed(raw_.get(), out); }));
    }

    // Registers a patch, which comes after all earlier ones. GP_STATUS_PARSE; GP_STATUS_PATH when graphs were recorded and none
    // has such a leaf: the message names the nearest.
    [[nodiscard]] Patch patch(const Spec& spec) {
        const auto made = spec.make();
        uint64_t id = 0;
        detail::check(gp_patch_register(raw_.get(), made.get(), &id));
        return Patch(raw_, id, spec.path());
    }
    // The same from text: "PATH[SLICE]=zero", "...=add:VALUE", "...=replace:VALUE", "PATH=probe", "PATH=record:LIMIT".
    [[nodiscard]] Patch patch(const std::string& text) {
        uint64_t id = 0;
        detail::check(gp_patch_add(raw_.get(), text.c_str(), &id));
        return Patch(raw_, id, text);
    }
    // Registers all of them, or, if one is refused, none: GP_STATUS_PATH names every bad path.
    [[nodiscard]] PatchSet patches(const std::vector<Spec>& specs) {
        std::vector<std::shared_ptr<gp_spec>> made;
        std::vector<const gp_spec*> raw;
        for (const Spec& spec : specs) raw.push_back(made.emplace_back(spec.make()).get());
        std::vector<uint64_t> ids(specs.size());
        std::vector<Patch> patches;
        patches.reserve(ids.size());
        detail::check(gp_patch_register_all(raw_.get(), raw.data(), raw.size(), ids.data()));
        for (size_t i = 0; i < ids.size(); ++i) patches.push_back(Patch(raw_, ids[i], specs[i].path()));
        return PatchSet(std::move(patches));
    }
    [[nodiscard]] Probe probe(const std::string& path) { return Probe(patch(graphpatch::probe(path))); }
    [[nodiscard]] Record record(const std::string& path, uint64_t limit = 0) {
        return Record(patch(graphpatch::record(path, limit)));
    }
    // Saves what all probes and records have kept as safetensors.
    void save_kept(const std::string& file) const { detail::check(gp_kept_save(raw_.get(), file.c_str())); }

    // Loads the kernels on a CUDA device and uploads the patches' values there; needed before a CUDA graph is captured.
    void prepare_cuda(uint32_t device) { detail::check(gp_cuda_prepare(raw_.get(), device)); }

    // The session's handle, borrowed, for calls of the C ABI that this class does not wrap.
    gp_session* get() const noexcept { return raw_.get(); }

private:
    explicit Session(std::nullptr_t)
        : raw_(detail::made<gp_session>([](gp_session** out) { return gp_session_open(out); }, gp_session_close)) {}
    void end() noexcept {
        if (raw_) gp_session_detach(raw_.get());
        raw_.reset();
    }

    // Shared with the session's patches, which may outlive this object.
    std::shared_ptr<gp_session> raw_;
};

} // namespace GRAPHPATCH_NAMESPACE
} // namespace graphpatch
