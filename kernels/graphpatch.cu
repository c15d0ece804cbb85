// The kernels: one entry for each operation and path, and one for several works at once. `make generate` compiles this
// file, and all that it includes, to graphpatch.ptx.
#ifdef GRAPHPATCH_EMULATE
#include "emulate.h"
#else
#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 2)
#endif

#include "add.cuh"
#include "replace.cuh"
#include "zero.cuh"

DEVICE GridPosition here() {
  return {blockIdx.x, gridDim.x, threadIdx.x, blockDim.x};
}

struct Dense {
  template <class Action>
  DEVICE void operator()(const Work& work, const GridPosition& position, const Action& action) const {
    dense(work, position, action);
  }
};
struct Strided {
  template <class Action>
  DEVICE void operator()(const Work& work, const GridPosition& position, const Action& action) const {
    strided(work, position, action);
  }
};

// `Walk` goes over the region: Dense or Strided.
template <class Walk>
DEVICE void zero(const Work& work, const GridPosition& position) {
  if (begin(work).on)
    Walk()(work, position, Zero{work.element});
}

template <class Walk>
DEVICE void replace(const Work& work, const GridPosition& position) {
  const Start start = begin(work);
  if (start.on && work.value)
    Walk()(work, position, Copy{work.element});
  else if (start.on)
    Walk()(work, position, Fill{work.element, start.number});
}

template <class Walk>
DEVICE void add(const Work& work, const GridPosition& position) {
  const Start start = begin(work);
  if (start.on && work.value)
    with_sum<true>(work.dtype, work.element, start.number, [&](const auto& sum) { Walk()(work, position, sum); });
  else if (start.on)
    with_sum<false>(work.dtype, work.element, start.number, [&](const auto& sum) { Walk()(work, position, sum); });
}

// Element by element, with conversion; and through index lists, if there are any.
DEVICE void any(const Work& work, const GridPosition& position, const Picks& picks) {
  const Start start = begin(work);
  if (!start.on)
    return;
  char* data = reinterpret_cast<char*>(work.data);
  const char* value = reinterpret_cast<const char*>(work.value);
  each_unit(work, position, picks.list_step, [&](const Offsets& at) {
    char* here = data + at.data;
    const i64* lists = reinterpret_cast<const i64*>(picks.lists) + at.list;
#pragma unroll 1
    for (u64 k = 0; k < picks.count; ++k) {
      const i64 index = lists[k * picks.length];
      here += (index < 0 ? index + picks.picked[k].size : index) * picks.picked[k].step;
    }
    const char* other = value + at.value;
    if (work.op == OP_ADD)
      AddAny{work.dtype, work.value_dtype, work.common, value != nullptr, start.number}.element(here, other);
    else if (work.op == OP_ZERO)
      put_bytes(here, Pack{}, work.element);
    else if (!value)
      put_bytes(here, start.number, work.element);
    else if (work.value_dtype == work.dtype)
      put_bytes(here, get_bytes(other, work.element), work.element);
    else
      Convert{work.dtype, work.value_dtype}.element(here, other);
  });
}

KERNEL gp_zero_dense(const Work work) {
  zero<Dense>(work, here());
}
KERNEL gp_zero_strided(const Work work) {
  zero<Strided>(work, here());
}
KERNEL gp_add_dense(const Work work) {
  add<Dense>(work, here());
}
KERNEL gp_add_strided(const Work work) {
  add<Strided>(work, here());
}
KERNEL gp_replace_dense(const Work work) {
  replace<Dense>(work, here());
}
KERNEL gp_replace_strided(const Work work) {
  replace<Strided>(work, here());
}
KERNEL gp_any(const Work work, const Picks picks) {
  any(work, here(), picks);
}

// Works on memory that no other work of the batch touches; each has some of the blocks. All of them are
// strided.
KERNEL gp_batch(const Batch batch) {
  u32 i = 0;
  while (i + 1 < batch.count && blockIdx.x >= batch.end[i])
    ++i;
  const Work& work = batch.works[i];
  const u32 first = i ? batch.end[i - 1] : 0;
  const GridPosition position = {blockIdx.x - first, batch.end[i] - first, threadIdx.x, blockDim.x};
  switch (work.op) {
    case OP_ZERO:
      return zero<Strided>(work, position);
    case OP_REPLACE:
      return replace<Strided>(work, position);
    default:
      return add<Strided>(work, position);
  }
}
