// Fibers: programs that leave a call in its middle, make others on the same thread, and go back to it later.
#pragma once

#include "frame.hpp"

#include <utility>

namespace graphpatch {
inline namespace GRAPHPATCH_NAMESPACE {

// Sets aside the calls that are under way on this thread, from the line where this stands until the block ends. It stands
// around each switch to another fiber; without it, the calls that the other one makes are taken for parts of these. Where no
// call is under way, it does nothing. The fiber has to go on on the same thread: otherwise its runs end here, and a note says
// so.
//
//   {
//       graphpatch::CallsAside aside;
//       fiber = std::move(fiber).resume();
//   }
class CallsAside {
public:
    CallsAside() {
        detail::check(gp_calls_set_aside(&aside_));
        current_ = std::exchange(detail::current, nullptr);
    }
    CallsAside(const CallsAside&) = delete;
    CallsAside& operator=(const CallsAside&) = delete;
    ~CallsAside() {
        if (gp_calls_take_up(aside_) == GP_STATUS_OK) {
            detail::current = current_;
            return;
        }
        const std::string text = std::string("calls of a fiber were not taken up again: ") + gp_last_error();
        gp_aside_free(aside_);
        gp_session_note(nullptr, text.c_str());
    }

private:
    gp_aside* aside_ = nullptr;
    detail::Frame* current_ = nullptr;
};

}  // namespace GRAPHPATCH_NAMESPACE
}  // namespace graphpatch
