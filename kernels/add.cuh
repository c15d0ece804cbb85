// tensor[slice] += value, computed as libtorch does: 16-bit floats in 32 bits and rounded once, integers modulo their
// width, bool as a logical or; a value of another dtype is converted to the dtype in which libtorch would add.
#pragma once

#include "dtype.cuh"

// How the real numbers of one float format are added: as `Wide`; a complex number is two of them.
struct HalfSum {
  typedef float Wide;
  static constexpr u32 BITS = 16;
  DEVICE static float widen(u64 a) {
    return half_to_float(static_cast<u16>(a));
  }
  DEVICE static u64 narrow(float a) {
    return half_from_float(a);
  }
};

struct BfloatSum {
  typedef float Wide;
  static constexpr u32 BITS = 16;
  DEVICE static float widen(u64 a) {
    return bfloat_to_float(static_cast<u16>(a));
  }
  DEVICE static u64 narrow(float a) {
    return bfloat_from_float(a);
  }
};

struct FloatSum {
  typedef float Wide;
  static constexpr u32 BITS = 32;
  DEVICE static float widen(u64 a) {
    return float_of(static_cast<u32>(a));
  }
  DEVICE static u64 narrow(float a) {
    return bits_of(a);
  }
};

struct DoubleSum {
  typedef double Wide;
  static constexpr u32 BITS = 64;
  DEVICE static double widen(u64 a) {
    return double_of(a);
  }
  DEVICE static u64 narrow(double a) {
    return bits_of(a);
  }
};

// Every second lane adds `odd`: the imaginary part of a complex number, or the same number again.
template <class Sum, bool TENSOR>
struct AddLanes {
  static constexpr bool READS = true, VALUE = TENSOR;
  u32 size;
  typename Sum::Wide even, odd;

  DEVICE u64 word(u64 a, u64 b) const {
    const u64 mask = ~0ull >> (64 - Sum::BITS);
    u64 out = 0;
#pragma unroll
    for (u32 lane = 0; lane * Sum::BITS < 64; ++lane) {
      const u32 shift = lane * Sum::BITS;
      const typename Sum::Wide other = TENSOR ? Sum::widen((b >> shift) & mask) : (lane % 2 ? odd : even);
      out |= Sum::narrow(Sum::widen((a >> shift) & mask) + other) << shift;
    }
    return out;
  }
  DEVICE Pack pack(const Pack& old, const Pack& value) const {
    const AddLanes second = {size, Sum::BITS == 64 ? odd : even, odd};
    return {{word(old.part[0], value.part[0]), second.word(old.part[1], value.part[1])}};
  }
  DEVICE void element(char* data, const char* value) const {
    put_bytes(data, pack(get_bytes(data, size), TENSOR ? get_bytes(value, size) : Pack{}), size);
  }
};

// Integers of any width, added modulo it, eight bytes at a time: the highest bit of each lane is added without carry.
// bool is a logical or.
template <bool TENSOR>
struct AddIntegers {
  static constexpr bool READS = true, VALUE = TENSOR;
  u32 size;
  bool logical;
  u64 high; // the highest bit of each lane
  Pack number;

  DEVICE u64 word(u64 a, u64 b) const {
    return logical ? (a | b) : ((a & ~high) + (b & ~high)) ^ ((a ^ b) & high);
  }
  DEVICE Pack pack(const Pack& old, const Pack& value) const {
    const Pack& other = TENSOR ? value : number;
    return {{word(old.part[0], other.part[0]), word(old.part[1], other.part[1])}};
  }
  DEVICE void element(char* data, const char* value) const {
    put_bytes(data, pack(get_bytes(data, size), TENSOR ? get_bytes(value, size) : Pack{}), size);
  }
};

DEVICE u64 high_bits(u32 size) {
  switch (size) {
    case 1:
      return 0x8080808080808080ull;
    case 2:
      return 0x8000800080008000ull;
    case 4:
      return 0x8000000080000000ull;
    default:
      return 0x8000000000000000ull;
  }
}

template <class Sum, bool TENSOR>
DEVICE AddLanes<Sum, TENSOR> lanes_of(u32 size, const Pack& number) {
  if (Sum::BITS == 64)
    return {size, static_cast<typename Sum::Wide>(double_of(number.part[0])),
            static_cast<typename Sum::Wide>(double_of(number.part[1]))};
  return {size, float_of(static_cast<u32>(number.part[0])), float_of(static_cast<u32>(number.part[0] >> 32))};
}

// Calls `run` with the addition of the dtype. A number comes as two floats, two doubles, or repeated integers.
template <bool TENSOR, class Run>
DEVICE void with_sum(u8 dtype, u32 size, const Pack& number, Run run) {
  switch (dtype) {
    case F16:
    case C32:
      return run(lanes_of<HalfSum, TENSOR>(size, number));
    case BF16:
      return run(lanes_of<BfloatSum, TENSOR>(size, number));
    case F32:
    case C64:
      return run(lanes_of<FloatSum, TENSOR>(size, number));
    case F64:
    case C128:
      return run(lanes_of<DoubleSum, TENSOR>(size, number));
    default:
      return run(AddIntegers<TENSOR>{size, dtype == BOOL8, high_bits(size), number});
  }
}

// A value as it is in the dtype that libtorch adds in.
DEVICE Number in_common(u8 common, const Number& n) {
  switch (common) {
    case F16:
      return real(half_to_float(half_from_float(as_float(n))));
    case BF16:
      return real(bfloat_to_float(bfloat_from_float(as_float(n))));
    case F32:
      return real(as_float(n));
    case F64:
      return real(as_double(n));
    case C32:
      return complex(half_to_float(half_from_float(as_float(n))),
                     half_to_float(half_from_float(static_cast<float>(n.kind == 3 ? n.im : 0))));
    case C64:
      return complex(as_float(n), static_cast<float>(n.kind == 3 ? n.im : 0));
    case C128:
      return complex(as_double(n), n.kind == 3 ? n.im : 0);
    default:
      return whole(as_integer(n));
  }
}

// Both operands in the common dtype; 16-bit and 32-bit ones are added in 32 bits, and the sum is converted back.
struct AddAny {
  u8 dtype, value_dtype, common;
  bool tensor;
  Pack number;

  DEVICE void element(char* data, const char* value) const {
    const Number a = in_common(common, load(dtype, data));
    const Number b = tensor ? in_common(common, load(value_dtype, value)) : wide();
    switch (common) {
      case F64:
        return store(dtype, data, real(a.re + b.re));
      case F16:
      case BF16:
      case F32:
        return store(dtype, data, real(rounded(static_cast<float>(a.re) + static_cast<float>(b.re))));
      case C128:
        return store(dtype, data, complex(a.re + b.re, a.im + b.im));
      case C32:
      case C64:
        return store(dtype, data,
                     complex(rounded(static_cast<float>(a.re) + static_cast<float>(b.re)),
                             rounded(static_cast<float>(a.im) + static_cast<float>(b.im))));
      case BOOL8:
        return store(dtype, data, whole(a.whole != 0 || b.whole != 0));
      default:
        return store(dtype, data, whole(static_cast<i64>(static_cast<u64>(a.whole) + static_cast<u64>(b.whole))));
    }
  }

  // The number, in the form that with_sum takes it.
  DEVICE Number wide() const {
    switch (common) {
      case F16:
      case BF16:
      case F32:
        return real(float_of(static_cast<u32>(number.part[0])));
      case F64:
        return real(double_of(number.part[0]));
      case C32:
      case C64:
        return complex(float_of(static_cast<u32>(number.part[0])), float_of(static_cast<u32>(number.part[0] >> 32)));
      case C128:
        return complex(double_of(number.part[0]), double_of(number.part[1]));
      default:
        return whole(static_cast<i64>(number.part[0]));
    }
  }

  // The sum in the common dtype, before it becomes the tensor's.
  DEVICE float rounded(float sum) const {
    if (common == F16 || common == C32)
      return half_to_float(half_from_float(sum));
    if (common == BF16)
      return bfloat_to_float(bfloat_from_float(sum));
    return sum;
  }
};
