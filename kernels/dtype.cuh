// Element types: their numbers (those of seam.h), and conversion between any two of them with libtorch's rounding.
//
// bfloat16 and the float8 kinds are converted in integer arithmetic, on every card alike. float16 uses the hardware's
// instructions where there is a card, and the same integer arithmetic where there is none.
#pragma once

#include "common.cuh"

enum Dtype : u8 {
  BOOL8 = 1,
  U8 = 2,
  I8 = 3,
  I16 = 4,
  I32 = 5,
  I64 = 6,
  F16 = 7,
  BF16 = 8,
  F32 = 9,
  F64 = 10,
  C32 = 11,
  C64 = 12,
  C128 = 13,
  U16 = 14,
  U32 = 15,
  U64 = 16,
  F8_E4M3FN = 17,
  F8_E5M2 = 18,
  F8_E4M3FNUZ = 19,
  F8_E5M2FNUZ = 20
};

DEVICE u32 bits_of(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  u32 bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
#endif
}

DEVICE float float_of(u32 bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
#endif
}

DEVICE u64 bits_of(double value) {
#ifdef __CUDA_ARCH__
  return static_cast<u64>(__double_as_longlong(value));
#else
  u64 bits;
  __builtin_memcpy(&bits, &value, 8);
  return bits;
#endif
}

DEVICE double double_of(u64 bits) {
#ifdef __CUDA_ARCH__
  return __longlong_as_double(static_cast<i64>(bits));
#else
  double value;
  __builtin_memcpy(&value, &bits, 8);
  return value;
#endif
}

// A float format of 16 or 8 bits: exponent bits, mantissa bits, bias; what is too large for it becomes INFINITE.
template <int EXPONENT, int MANTISSA, int BIAS, u32 INFINITE, u32 NOT_A_NUMBER, u32 FIRST_TOO_LARGE, bool SIGNED_ZERO>
struct Small {
  // Round to nearest, ties to even; subnormal results too.
  DEVICE static u32 from(float value) {
    const u32 bits = bits_of(value), sign = bits >> 31, rest = bits & 0x7fffffffu;
    const u32 high = sign << (EXPONENT + MANTISSA);
    if (rest > 0x7f800000u)
      return SIGNED_ZERO ? (high | NOT_A_NUMBER) : NOT_A_NUMBER;
    const int exponent = static_cast<int>(rest >> 23) - 127 + BIAS;
    u32 small;
    if (exponent > 0) {
      const u32 drop = 23 - MANTISSA;
      const u32 moved = rest - (static_cast<u32>(127 - BIAS) << 23);
      small = (moved + ((1u << (drop - 1)) - 1) + ((moved >> drop) & 1)) >> drop;
    } else if (exponent < -MANTISSA) {
      small = 0; // less than half of the smallest subnormal
    } else {
      const u32 mantissa = (rest & 0x7fffffu) | 0x800000u;
      const u32 drop = static_cast<u32>(24 - MANTISSA - exponent);
      small = (mantissa + ((1u << (drop - 1)) - 1) + ((mantissa >> drop) & 1)) >> drop;
    }
    if (small >= FIRST_TOO_LARGE)
      return SIGNED_ZERO ? (high | INFINITE) : INFINITE;
    if (!SIGNED_ZERO && small == 0)
      return 0;
    return high | small;
  }

  DEVICE static float to(u32 small) {
    const u32 sign = (small >> (EXPONENT + MANTISSA)) & 1;
    const u32 rest = small & ((1u << (EXPONENT + MANTISSA)) - 1);
    if (!SIGNED_ZERO && sign && rest == 0)
      return float_of(0x7fc00000u);
    if (rest >= FIRST_TOO_LARGE)
      return float_of((sign << 31) | (INFINITE == NOT_A_NUMBER || rest > INFINITE ? 0x7fc00000u : 0x7f800000u));
    const u32 exponent = rest >> MANTISSA, mantissa = rest & ((1u << MANTISSA) - 1);
    if (exponent)
      return float_of((sign << 31) | ((exponent + 127 - BIAS) << 23) | (mantissa << (23 - MANTISSA)));
    // A subnormal of ours is a normal float: mantissa * 2^(1 - BIAS - MANTISSA).
    const float unit = float_of(static_cast<u32>(127 + 1 - BIAS - MANTISSA) << 23);
    const float size = static_cast<float>(mantissa) * unit;
    return sign ? -size : size;
  }
};

typedef Small<5, 10, 15, 0x7c00, 0x7e00, 0x7c00, true> Half;
typedef Small<4, 3, 7, 0x7f, 0x7f, 0x7f, true> E4m3fn;
typedef Small<5, 2, 15, 0x7c, 0x7f, 0x7c, true> E5m2;
// One zero, and one NaN, which is where the negative zero would be. Values beyond the largest become NaN.
typedef Small<4, 3, 8, 0x80, 0x80, 0x80, false> E4m3fnuz;
typedef Small<5, 2, 16, 0x80, 0x80, 0x80, false> E5m2fnuz;

DEVICE float half_to_float(u16 bits) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  return Half::to(bits);
#endif
}

DEVICE u16 half_from_float(float value) {
#ifdef __CUDA_ARCH__
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  return static_cast<u16>(Half::from(value));
#endif
}

DEVICE float bfloat_to_float(u16 bits) {
  return float_of(static_cast<u32>(bits) << 16);
}

DEVICE u16 bfloat_from_float(float value) {
  const u32 bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return 0x7fc0;
  return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// A value on its way from one dtype to another: an integer, or one or two real numbers.
struct Number {
  u8 kind; // 0: integer, 1: unsigned 64-bit integer, 2: real, 3: complex
  i64 whole;
  double re, im;
};

template <class T>
DEVICE T at(const char* from) {
  return *reinterpret_cast<const T*>(from);
}

template <class T>
DEVICE void put(char* to, T value) {
  *reinterpret_cast<T*>(to) = value;
}

// `size` bytes, the first ones of a Pack.
DEVICE void put_bytes(char* to, const Pack& value, u32 size) {
  switch (size) {
    case 1:
      return put(to, static_cast<u8>(value.part[0]));
    case 2:
      return put(to, static_cast<u16>(value.part[0]));
    case 4:
      return put(to, static_cast<u32>(value.part[0]));
    case 8:
      return put(to, value.part[0]);
    default:
      return store16(to, value);
  }
}

DEVICE Pack get_bytes(const char* from, u32 size) {
  switch (size) {
    case 1:
      return {{at<u8>(from), 0}};
    case 2:
      return {{at<u16>(from), 0}};
    case 4:
      return {{at<u32>(from), 0}};
    case 8:
      return {{at<u64>(from), 0}};
    default:
      return load16(from);
  }
}

DEVICE Number whole(i64 value) {
  return {0, value, 0, 0};
}
DEVICE Number real(double value) {
  return {2, 0, value, 0};
}
DEVICE Number complex(double re, double im) {
  return {3, 0, re, im};
}

DEVICE Number load(u8 dtype, const char* from) {
  switch (dtype) {
    case BOOL8:
      return whole(at<u8>(from) != 0);
    case U8:
      return whole(at<u8>(from));
    case I8:
      return whole(at<i8>(from));
    case I16:
      return whole(at<i16>(from));
    case I32:
      return whole(at<i32>(from));
    case I64:
      return whole(at<i64>(from));
    case U16:
      return whole(at<u16>(from));
    case U32:
      return whole(at<u32>(from));
    case U64:
      return {1, at<i64>(from), 0, 0};
    case F16:
      return real(half_to_float(at<u16>(from)));
    case BF16:
      return real(bfloat_to_float(at<u16>(from)));
    case F32:
      return real(at<float>(from));
    case F64:
      return real(at<double>(from));
    case C32:
      return complex(half_to_float(at<u16>(from)), half_to_float(at<u16>(from + 2)));
    case C64:
      return complex(at<float>(from), at<float>(from + 4));
    case C128:
      return complex(at<double>(from), at<double>(from + 8));
    case F8_E4M3FN:
      return real(E4m3fn::to(at<u8>(from)));
    case F8_E5M2:
      return real(E5m2::to(at<u8>(from)));
    case F8_E4M3FNUZ:
      return real(E4m3fnuz::to(at<u8>(from)));
    default:
      return real(E5m2fnuz::to(at<u8>(from)));
  }
}

DEVICE double as_double(const Number& n) {
  if (n.kind >= 2)
    return n.re;
  return n.kind == 1 ? static_cast<double>(static_cast<u64>(n.whole)) : static_cast<double>(n.whole);
}

// An integer is rounded once, not by way of a double.
DEVICE float as_float(const Number& n) {
  if (n.kind >= 2)
    return static_cast<float>(n.re);
  return n.kind == 1 ? static_cast<float>(static_cast<u64>(n.whole)) : static_cast<float>(n.whole);
}

// Real numbers are cut towards zero. The result for one that no 64-bit integer holds is undefined, as in libtorch.
DEVICE i64 as_integer(const Number& n) {
  if (n.kind < 2)
    return n.whole;
  const double limit = 9223372036854775808.0;
  if (n.re >= limit)
    return n.re < 2 * limit ? static_cast<i64>(static_cast<u64>(n.re)) : static_cast<i64>(0x7fffffffffffffffll);
  return n.re >= -limit ? static_cast<i64>(n.re) : static_cast<i64>(0x8000000000000000ull);
}

DEVICE bool as_bool(const Number& n) {
  return n.kind < 2 ? n.whole != 0 : (n.re != 0 || n.im != 0);
}

DEVICE void store(u8 dtype, char* to, const Number& n) {
  switch (dtype) {
    case BOOL8:
      return put<u8>(to, as_bool(n));
    case U8:
    case I8:
      return put<u8>(to, static_cast<u8>(as_integer(n)));
    case I16:
    case U16:
      return put<u16>(to, static_cast<u16>(as_integer(n)));
    case I32:
    case U32:
      return put<u32>(to, static_cast<u32>(as_integer(n)));
    case I64:
    case U64:
      return put<i64>(to, as_integer(n));
    case F16:
      return put<u16>(to, half_from_float(as_float(n)));
    case BF16:
      return put<u16>(to, bfloat_from_float(as_float(n)));
    case F32:
      return put<float>(to, as_float(n));
    case F64:
      return put<double>(to, as_double(n));
    case C32:
      put<u16>(to, half_from_float(as_float(n)));
      return put<u16>(to + 2, half_from_float(static_cast<float>(n.kind == 3 ? n.im : 0)));
    case C64:
      put<float>(to, as_float(n));
      return put<float>(to + 4, static_cast<float>(n.kind == 3 ? n.im : 0));
    case C128:
      put<double>(to, as_double(n));
      return put<double>(to + 8, n.kind == 3 ? n.im : 0);
    case F8_E4M3FN:
      return put<u8>(to, static_cast<u8>(E4m3fn::from(as_float(n))));
    case F8_E5M2:
      return put<u8>(to, static_cast<u8>(E5m2::from(as_float(n))));
    case F8_E4M3FNUZ:
      return put<u8>(to, static_cast<u8>(E4m3fnuz::from(as_float(n))));
    default:
      return put<u8>(to, static_cast<u8>(E5m2fnuz::from(as_float(n))));
  }
}
