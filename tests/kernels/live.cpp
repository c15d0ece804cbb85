// The switch and number of a live patch change while kernels read them, on threads of their own: each kernel sees a state
// that was written, never half of one and half of another. The writer writes what the host uploads, in its order
// (`Slot::change` in src/cuda/resident.rs).
#define GRAPHPATCH_EMULATE
#include "../../kernels/graphpatch.cu"

#include <atomic>
#include <cstdio>
#include <thread>

// Each state is told from its number: both halves alike, on where it is even.
static void change(Live& live, u64 number) {
  const u32 version = live.version + 1;
  LiveState& state = live.states[version & 1];
  __atomic_store_n(&state.on, number % 2 == 0, __ATOMIC_RELAXED);
  __atomic_store_n(&state.number[0], number, __ATOMIC_RELAXED);
  __atomic_store_n(&state.number[1], number, __ATOMIC_RELAXED);
  __atomic_store_n(&live.version, version, __ATOMIC_RELEASE);
}

int main() {
  Live live = {0, 0, {{1, 0, {0, 0}}, {1, 0, {0, 0}}}};
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (u64 number = 1; !done; ++number) {
      // As a copy that is under way when the next one has begun.
      std::atomic_thread_fence(std::memory_order_seq_cst);
      change(live, number);
    }
  });
  Work work = {};
  work.live = reinterpret_cast<u64>(&live);
  u64 torn = 0, seen = 0, last = 0;
  // Until many different states were read.
  while (seen < 1000000) {
    const Start start = begin(work);
    torn += start.number.part[0] != start.number.part[1] || start.on != (start.number.part[0] % 2 == 0);
    seen += start.number.part[0] != last;
    last = start.number.part[0];
  }
  done = true;
  writer.join();
  std::printf("%llu torn of %llu states\n", torn, seen);
  return torn != 0;
}
