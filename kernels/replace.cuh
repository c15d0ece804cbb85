// tensor[slice] = value: bytes where value and tensor have one dtype, else converted.
#pragma once

#include "dtype.cuh"

struct Fill {
  static constexpr bool READS = false, VALUE = false;
  u32 size;
  Pack number; // repeated elements

  DEVICE Pack pack(const Pack&, const Pack&) const {
    return number;
  }
  DEVICE void element(char* data, const char*) const {
    put_bytes(data, number, size);
  }
};

struct Copy {
  static constexpr bool READS = false, VALUE = true;
  u32 size;

  DEVICE Pack pack(const Pack&, const Pack& value) const {
    return value;
  }
  DEVICE void element(char* data, const char* value) const {
    put_bytes(data, get_bytes(value, size), size);
  }
};

struct Convert {
  u8 dtype, value_dtype;

  DEVICE void element(char* data, const char* value) const {
    store(dtype, data, load(value_dtype, value));
  }
};
