// The run of this thread: which scopes are open, and whether operations are intercepted right now.
#include "adapter.h"

namespace graphpatch {

Thread& this_thread() {
  static thread_local Thread thread;
  return thread;
}

static void arm(bool on) {
  c10::impl::tls_set_dispatch_key_included(kKey, on);
}

static void push(Thread& thread, uint32_t flags) {
  thread.frames.emplace_back();
  thread.frames.back().flags = flags;
  if (flags & GP_FRAME_COLD)
    thread.cold = 1;
  arm(flags & GP_FRAME_ARM);
}

void enter_root(uint32_t flags) {
  push(this_thread(), flags);
}

void enter_scope(GpScope* scope) {
  Thread& thread = this_thread();
  if (thread.cold) {
    ++thread.cold;
    return;
  }
  push(thread, core->scope_enter(thread.run, scope));
}

void leave_scope() {
  Thread& thread = this_thread();
  if (thread.cold && --thread.cold)
    return;
  if (thread.frames.empty())
    return;
  thread.frames.pop_back();
  uint32_t flags = core->scope_leave(thread.run);
  arm(!thread.frames.empty() && (flags & GP_FRAME_ARM));
}

void end_run() {
  Thread& thread = this_thread();
  arm(false);
  GpRun* run = std::exchange(thread.run, nullptr);
  thread.cold = 0;
  thread.frames.clear();
  if (run)
    core->run_end(run);
  thread.seen.clear();
}

} // namespace graphpatch
