// What all kernels share: the struct that describes a launch, and how a thread finds its elements.
//
// The host (src/cuda/work.rs, the same layout) has merged neighbouring dimensions and chosen the unit: 16 bytes where
// everything is aligned for it, else one element. No header is included, so that NVRTC compiles these files as they
// are; emulate.h stands in for CUDA where a C++ compiler does.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;

#define GP_DIMS 8   // of a region, after merging
#define GP_WORKS 8  // in one launch of gp_batch
#define GP_UNROLL 4 // 16-byte units that a thread has in flight in the dense kernels

enum Op : u8 { OP_ZERO = 0, OP_ADD = 1, OP_REPLACE = 2 };
enum Path : u8 { PATH_DENSE = 0, PATH_STRIDED = 1, PATH_ANY = 2 };

// Steps in bytes, outermost dimension first.
struct Dim {
  i64 size;
  i64 step;
  i64 value_step;
};

// A patch's switch and number, as they are at one time.
struct LiveState {
  u32 on;
  u32 reserved;
  u64 number[2]; // takes the place of Work's
};

// The same in device memory, so that a captured graph can be switched and changed while it runs: the last bit of the
// version says which state holds. The host writes the other one first, and the version after it.
struct Live {
  u32 version;
  u32 reserved;
  LiveState states[2];
};

// One action on one region.
struct Work {
  u64 data;      // the first unit
  u64 value;     // the value's first unit; 0: `number`
  u64 number[2]; // replace, and add to integers: 16 bytes of repeated elements; add to others: see AddLanes
  u64 live;      // a Live; 0: none
  u64 units;     // dense: full 16-byte units; else the product of all sizes, less than 2^32
  u32 rank;
  u32 unit;      // bytes
  u8 op;
  u8 path;
  u8 dtype;
  u8 value_dtype;
  u8 common;     // add: the dtype that libtorch would add in
  u8 reserved[3];
  u32 head;      // dense: elements before the first aligned unit,
  u32 tail;      // and after the last one
  u32 element;   // bytes
  Dim dims[GP_DIMS];
};

// Index lists: element p of list k is an index into the dimension `picked[k]` of the tensor.
struct Picked {
  i64 size;
  i64 step; // bytes
};
struct Picks {
  u64 lists;  // i64[count][length], all in range after adding `size` to negative ones
  u64 length;
  u64 count;
  i64 list_step[GP_DIMS]; // of Work's dimensions, in entries of a list
  Picked picked[GP_DIMS];
};

struct Batch {
  u32 count;
  u32 end[GP_WORKS + 1]; // the first block that is not work i's any more
  Work works[GP_WORKS];
};

static_assert(sizeof(Dim) == 24 && sizeof(Live) == 56, "src/cuda/work.rs has the same layout");
static_assert(sizeof(Work) == 80 + 24 * GP_DIMS && sizeof(Picks) == 24 + 24 * GP_DIMS, "src/cuda/work.rs has the same layout");
static_assert(sizeof(Batch) == 40 + sizeof(Work) * GP_WORKS, "src/cuda/work.rs has the same layout");

// Where a thread stands in its launch, or in the part of a launch that does one work.
struct GridPosition {
  u64 block, blocks, thread, threads;
};

// 16 bytes in one access.
struct alignas(16) Pack {
  u64 part[2];
};

DEVICE Pack load16(const char* at) {
#ifdef __CUDA_ARCH__
  Pack out;
  asm volatile("ld.global.v2.u64 {%0, %1}, [%2];" : "=l"(out.part[0]), "=l"(out.part[1]) : "l"(at));
  return out;
#else
  return *reinterpret_cast<const Pack*>(at);
#endif
}

DEVICE void store16(char* at, const Pack& value) {
#ifdef __CUDA_ARCH__
  asm volatile("st.global.v2.u64 [%0], {%1, %2};" ::"l"(at), "l"(value.part[0]), "l"(value.part[1]) : "memory");
#else
  *reinterpret_cast<Pack*>(at) = value;
#endif
}

// Words that the host writes while a kernel runs: past the caches, and in this order.
DEVICE u32 load_acquire(const u32* at) {
#ifdef __CUDA_ARCH__
  u32 out;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(out) : "l"(at) : "memory");
  return out;
#else
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
#endif
}

DEVICE u32 load_relaxed(const u32* at) {
#ifdef __CUDA_ARCH__
  u32 out;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(out) : "l"(at) : "memory");
  return out;
#else
  return __atomic_load_n(at, __ATOMIC_RELAXED);
#endif
}

DEVICE u64 load_relaxed(const u64* at) {
#ifdef __CUDA_ARCH__
  u64 out;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(out) : "l"(at) : "memory");
  return out;
#else
  return __atomic_load_n(at, __ATOMIC_RELAXED);
#endif
}

DEVICE void fence() {
#ifdef __CUDA_ARCH__
  asm volatile("fence.acq_rel.sys;" ::: "memory");
#else
  __atomic_thread_fence(__ATOMIC_ACQ_REL);
#endif
}

// Whether the patch is on, and its number, when the kernel begins.
struct Start {
  bool on;
  Pack number;
};

DEVICE Start begin(const Work& work) {
  const Live* live = reinterpret_cast<const Live*>(work.live);
  if (!live)
    return {true, {{work.number[0], work.number[1]}}};
  // A reader that the writer overtakes sees another version, and begins anew.
#pragma unroll 1
  for (;;) {
    const u32 version = load_acquire(&live->version);
    const LiveState& state = live->states[version & 1];
    const u32 on = load_relaxed(&state.on);
    const Pack number = {{load_relaxed(&state.number[0]), load_relaxed(&state.number[1])}};
    fence();
    if (load_relaxed(&live->version) == version)
      return {on != 0, number};
  }
}

// Where a unit lies in the region, in the value, and in the index lists.
struct Offsets {
  i64 data, value, list;
};

// The host splits regions of more units than 32 bits count: 32-bit division is several times as fast. Offsets are 64-bit.
DEVICE Offsets locate(const Work& work, u32 index, const i64* list_step) {
  Offsets at = {0, 0, 0};
#pragma unroll 1
  for (u32 d = work.rank; d-- > 0;) {
    const Dim& dim = work.dims[d];
    u32 here = index;
    if (d > 0) {
      const u32 size = static_cast<u32>(dim.size);
      index = here / size;
      here -= index * size;
    }
    at.data += here * dim.step;
    at.value += here * dim.value_step;
    if (list_step)
      at.list += here * list_step[d];
  }
  return at;
}

// Calls `body(offsets)` for this thread's units.
template <class Body>
DEVICE void each_unit(const Work& work, const GridPosition& position, const i64* list_step, Body body) {
  const u64 step = position.blocks * position.threads;
  for (u64 i = position.block * position.threads + position.thread; i < work.units; i += step)
    body(locate(work, static_cast<u32>(i), list_step));
}

// A region without gaps. An Action has pack(Pack old, Pack value) and element(char* data, const char* value); READS says
// whether it looks at the old value, VALUE whether there is a tensor for a value.
template <class Action>
DEVICE void dense(const Work& work, const GridPosition& position, const Action& action) {
  char* data = reinterpret_cast<char*>(work.data);
  const char* value = reinterpret_cast<const char*>(work.value);
  if (position.block == 0) {
    const u64 size = work.element;
    if (position.thread < work.head)
      action.element(data + position.thread * size, value + position.thread * size);
    if (position.thread < work.tail) {
      const u64 at = (work.head + position.thread) * size + work.units * 16;
      action.element(data + at, value + at);
    }
  }
  const u64 begin = static_cast<u64>(work.head) * work.element;
  data += begin;
  value += begin;
  const u64 tile = position.threads * GP_UNROLL;
  for (u64 first = position.block * tile; first < work.units; first += position.blocks * tile) {
    const u64 own = first + position.thread;
    if (first + tile <= work.units) {
      Pack old[GP_UNROLL], with[GP_UNROLL];
#pragma unroll
      for (int k = 0; k < GP_UNROLL; ++k) {
        const u64 at = (own + k * position.threads) * 16;
        old[k] = Action::READS ? load16(data + at) : Pack{};
        with[k] = Action::VALUE ? load16(value + at) : Pack{};
      }
#pragma unroll
      for (int k = 0; k < GP_UNROLL; ++k)
        store16(data + (own + k * position.threads) * 16, action.pack(old[k], with[k]));
    } else {
#pragma unroll 1
      for (u64 unit = own; unit < work.units; unit += position.threads) {
        const Pack old = Action::READS ? load16(data + unit * 16) : Pack{};
        const Pack with = Action::VALUE ? load16(value + unit * 16) : Pack{};
        store16(data + unit * 16, action.pack(old, with));
      }
    }
  }
}

// Any strides; a unit is 16 bytes or one element.
template <class Action>
DEVICE void strided(const Work& work, const GridPosition& position, const Action& action) {
  char* data = reinterpret_cast<char*>(work.data);
  const char* value = reinterpret_cast<const char*>(work.value);
  const bool packs = work.unit != work.element;
  each_unit(work, position, nullptr, [&](const Offsets& at) {
    char* here = data + at.data;
    if (packs) {
      const Pack old = Action::READS ? load16(here) : Pack{};
      const Pack with = Action::VALUE ? load16(value + at.value) : Pack{};
      store16(here, action.pack(old, with));
    } else {
      action.element(here, value + at.value);
    }
  });
}
