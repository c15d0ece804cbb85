// tensor[slice] = 0: every dtype has a value whose bytes are 0.
#pragma once

#include "dtype.cuh"

struct Zero {
  static constexpr bool READS = false, VALUE = false;
  u32 size;

  DEVICE Pack pack(const Pack&, const Pack&) const {
    return Pack{};
  }
  DEVICE void element(char* data, const char*) const {
    put_bytes(data, Pack{}, size);
  }
};
