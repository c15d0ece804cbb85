// A thread changes the switch and the number of a live patch while the main thread reads them as a kernel does. Each read must
// give a state that was written, never half of one and half of another. The writer writes in the order in which the host
// uploads (`Slot::change` in src/cuda/resident.rs).
#define GRAPHPATCH_EMULATE
#include "../../kernels/graphpatch.cu"

#include <atomic>
#include <cstdio>
#include <thread>

// The number determines the whole state: both halves hold it, and the patch is on if it is even.
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
      // The fence makes the next change begin only after the last one, like uploads in the order of a stream.
      std::atomic_thread_fence(std::memory_order_seq_cst);
      change(live, number);
    }
  });
  Work work = {};
  work.live = reinterpret_cast<u64>(&live);
  u64 torn = 0, seen = 0, last = 0;
  // Reads until a million different states were seen.
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
