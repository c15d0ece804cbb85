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

uint32_t enter_scope(GpScope* scope) {
  Thread& thread = this_thread();
  if (thread.cold) {
    ++thread.cold;
    return GP_FRAME_COLD;
  }
  const uint32_t flags = core->scope_enter(thread.run, scope);
  push(thread, flags);
  return flags;
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

void suspend() {
  Thread& thread = this_thread();
  auto outer = std::make_unique<Thread>(std::move(thread));
  thread = Thread();
  thread.outer = std::move(outer);
  thread.outer_armed = c10::impl::tls_is_dispatch_key_included(kKey);
  arm(false);
}

void take_up() {
  Thread& thread = this_thread();
  if (!thread.outer)
    return;
  auto outer = std::move(thread.outer);
  const bool armed = thread.outer_armed;
  thread = std::move(*outer);
  arm(armed);
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
  thread.called = nullptr;
  take_up();
}

} // namespace graphpatch
