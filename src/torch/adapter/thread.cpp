// The state of this thread, as the core shows it; the dispatch key, which only libtorch's side can switch; and the objects that
// are kept alive for a run.
#include "containers.h"
#include "gradients.h"

#include <torch/csrc/autograd/function.h>

namespace graphpatch {

static void include() {
  c10::impl::tls_set_dispatch_key_included(kKey, here.core || here.mirrors || watches_scope());
}

void rearm() {
  include();
}

void arm(uint32_t on) {
  here.core = on;
  include();
}

void watch(bool on) {
  if (here.mirrors == on)
    return;
  if (on && !here.core)
    here.core = c10::impl::tls_is_dispatch_key_included(kKey); // another thread's dispatch state may have been copied here
  here.mirrors = on;
  include();
}

static thread_local bool own_backward = false;

bool set_own_backward(bool on) {
  return std::exchange(own_backward, on);
}

bool has_own_backward() {
  return own_backward;
}

uint32_t suspend() {
  const uint32_t included = here.mirrors ? here.core : c10::impl::tls_is_dispatch_key_included(kKey);
  const uint32_t excluded = c10::impl::tls_is_dispatch_key_excluded(kKey);
  c10::impl::tls_set_dispatch_key_included(kKey, false);
  c10::impl::tls_set_dispatch_key_excluded(kKey, false);
  return included | excluded << 1;
}

void resume(uint32_t before) {
  arm(before & 1);
  c10::impl::tls_set_dispatch_key_excluded(kKey, before >> 1 & 1);
}

const void* backward_node() {
  return torch::autograd::get_current_node().get();
}

Held& held() {
  const GpThread& thread = this_thread();
  if (!thread.held)
    core->hold(new Held);
  return *static_cast<Held*>(thread.held);
}

void held_leave(void* pointer, uint32_t frame) {
  without_exceptions([&] {
    auto& held = *static_cast<Held*>(pointer);
    if (at::GradMode::is_enabled())
      refuse_gradients(held);
    keep_if(held.copies, [&](const Held::Copy& copy) { return copy.frame != frame; });
    held.readers.left(frame);
  });
}

void held_end(void* pointer) {
  without_exceptions([&] {
    auto& held = *static_cast<Held*>(pointer);
    refuse_gradients(held);
    settle_all_containers(held);
    const auto copies = std::move(held.copies);
    const auto shown = std::move(held.shown);
    if (held.life) {
      held.life.reset();
      prune_mirrors();
    }
  });
}

void held_free(void* pointer) {
  delete static_cast<Held*>(pointer);
}

void keep_addresses(const void* const* identities, size_t n) {
  if (!this_thread().run)
    return;
  without_exceptions([&] {
    auto& seen = held().seen;
    for (size_t i = 0; i < n; ++i)
      if (identities[i])
        seen.emplace_back(tensor_at(identities[i]).getIntrusivePtr());
  });
}

bool let_go(const void* identity) {
  const bool is_copy = mirrors_let_go(identity);
  if (!this_thread().held)
    return is_copy;
  forget_history(held(), identity);
  auto& seen = held().seen;
  const size_t before = seen.size();
  const auto is_it = [&](const WeakTensor& one) { return one._unsafe_get_target() == identity; };
  seen.erase(std::remove_if(seen.begin(), seen.end(), is_it), seen.end());
  return is_copy || seen.size() != before;
}

void keep(const void* identity) {
  mirrors_keep(identity);
  keep_addresses(&identity, 1);
}

} // namespace graphpatch
