// The few calls of the C ABI that the in-process host programs use, with errors as exceptions.
#pragma once

#include <graphpatch.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace abi {

inline void check(gp_status status) {
    if (status != GP_STATUS_OK) throw std::runtime_error(gp_last_error());
}

// One open session, attached to this process's libtorch for as long as it lives.
class Session {
public:
    Session() {
        check(gp_session_open(&raw_));
        check(gp_session_attach(raw_));
    }
    ~Session() { gp_session_close(raw_); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    uint64_t add(const std::string& patch) {
        uint64_t id = 0;
        check(gp_patch_add(raw_, patch.c_str(), &id));
        return id;
    }
    void remove(uint64_t id) { check(gp_patch_remove(raw_, id)); }
    gp_session* raw() const { return raw_; }
    void record(bool on) { check(gp_session_record(raw_, on)); }
    void save(const std::string& file) {
        gp_graphs* graphs = nullptr;
        check(gp_session_graphs(raw_, &graphs));
        gp_status status = gp_graphs_save(graphs, file.c_str());
        gp_graphs_free(graphs);
        check(status);
    }

private:
    gp_session* raw_ = nullptr;
};

}  // namespace abi
