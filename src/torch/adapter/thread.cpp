// The run of this thread: which scopes are open, and whether operations are intercepted right now.
#include "adapter.h"

#include <torch/csrc/autograd/function.h>

namespace graphpatch {

Thread& this_thread() {
  static thread_local Thread thread;
  return thread;
}

// The thread ends: what may still run on it (other destructors) is not intercepted.
Thread::~Thread() {
  if (flat) {
    flat.reset();
    c10::impl::tls_set_dispatch_key_included(kKey, false);
  }
}

static void arm(bool on) {
  c10::impl::tls_set_dispatch_key_included(kKey, on || this_thread().flat);
}

static void push(Thread& thread, uint32_t flags) {
  thread.frames.emplace_back();
  thread.frames.back().flags = flags;
  if (flags & GP_FRAME_COLD)
    thread.cold = 1;
  arm(flags & GP_FRAME_ARM);
}

void enter_root(uint32_t flags) {
  this_thread().node = torch::autograd::get_current_node().get();
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
  if (thread.cold > 1) {
    --thread.cold;
    return;
  }
  if (thread.frames.size() <= 1) // the root's own ends with the run
    return;
  thread.cold = 0;
  thread.frames.pop_back();
  uint32_t flags = core->scope_leave(thread.run);
  arm(flags & GP_FRAME_ARM);
}

void suspend() {
  Thread& thread = this_thread();
  auto outer = std::make_unique<Thread>(std::move(thread));
  thread = Thread();
  thread.outer = std::move(outer);
  thread.outer_armed = c10::impl::tls_is_dispatch_key_included(kKey);
  thread.outer_excluded = c10::impl::tls_is_dispatch_key_excluded(kKey);
  arm(false);
  c10::impl::tls_set_dispatch_key_excluded(kKey, false);
}

void take_up() {
  Thread& thread = this_thread();
  if (!thread.outer)
    return;
  auto outer = std::move(thread.outer);
  const bool armed = thread.outer_armed, excluded = thread.outer_excluded;
  thread = std::move(*outer);
  arm(armed);
  c10::impl::tls_set_dispatch_key_excluded(kKey, excluded);
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
  forget_shown();
  if (!thread.for_function)
    take_up();
}

Apart::Apart() {
  suspend();
  this_thread().for_function = true;
}

Apart::~Apart() {
  while (this_thread().run) // what the function left open
    end_run();
  take_up();
}

} // namespace graphpatch
