//! libtorch's rules for dtypes: which ones may meet, in which one they are added, and the bytes of a number. An answer `None`
//! leaves the patch to libtorch, which applies or refuses it.

use half::f16;

use super::work::Op;
use graphpatch_apply::{Outcome, View, cpu};
use graphpatch_core::patch::Number;
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::path::Slice;
use graphpatch_core::tensor::{Dtype, HostTensor};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Bool,
    Whole,
    Real,
    Complex,
}

fn class(dtype: Dtype) -> Option<Class> {
    Some(match dtype {
        Dtype::Bool => Class::Bool,
        Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Class::Whole,
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => Class::Real,
        Dtype::C32 | Dtype::C64 | Dtype::C128 => Class::Complex,
        // libtorch cannot add float8, and not all of the wide unsigned integers.
        _ => return None,
    })
}

/// The dtype that can hold both.
fn wider(a: Dtype, b: Dtype) -> Option<Dtype> {
    let (first, second) = (class(a)?, class(b)?);
    if a == b {
        return Some(a);
    }
    if first != second && first.min(second) < Class::Real {
        return Some(if first > second { a } else { b });
    }
    let large = |dtype: Dtype| match dtype {
        Dtype::F16 | Dtype::C32 => 1,
        Dtype::Bf16 => 2,
        Dtype::F32 | Dtype::C64 => 3,
        _ => 4,
    };
    let (x, y) = (large(a).min(large(b)), large(a).max(large(b)));
    // float16 and bfloat16 meet in float32.
    let size = if x == 1 && y == 2 { 3 } else { y };
    Some(match (first.max(second), size) {
        (Class::Whole, _) => match (a, b) {
            (Dtype::U8, Dtype::I8) | (Dtype::I8, Dtype::U8) => Dtype::I16,
            _ if a.size() >= b.size() => a,
            _ => b,
        },
        (Class::Complex, 1) => Dtype::C32,
        (Class::Complex, 2 | 3) => Dtype::C64,
        (Class::Complex, _) => Dtype::C128,
        (_, 3) => Dtype::F32,
        _ => Dtype::F64,
    })
}

/// The dtype in which libtorch does `tensor[slice] += value` with a tensor of dtype `value`; `None` where it refuses.
pub fn common(tensor: Dtype, value: Dtype) -> Option<Dtype> {
    let common = wider(tensor, value)?;
    let (to, from) = (class(tensor)?, class(common)?);
    let fits = match to {
        Class::Bool => from == Class::Bool,
        Class::Whole => from <= Class::Whole,
        Class::Real => from <= Class::Real,
        Class::Complex => true,
    };
    fits.then_some(common)
}

/// Whether `tensor[slice] = value` converts without a warning, and to the same result in all versions of libtorch.
pub fn converts(tensor: Dtype, value: Dtype) -> bool {
    // If a value is too large for float8_e4m3fn, some versions write NaN, others the largest number.
    if tensor == Dtype::F8E4m3fn {
        return matches!(
            value,
            Dtype::F8E4m3fn | Dtype::F8E4m3fnuz | Dtype::Bool | Dtype::U8 | Dtype::I8
        );
    }
    let complex = |dtype| matches!(dtype, Dtype::C32 | Dtype::C64 | Dtype::C128);
    !complex(value) || complex(tensor)
}

/// The number in a tensor without dimensions.
pub fn number_of(tensor: &HostTensor) -> Option<Number> {
    fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at * N..(at + 1) * N)?.try_into().ok()
    }
    let bytes = tensor.bytes();
    Some(match tensor.dtype() {
        Dtype::Bool => Number::Bool(*bytes.first()? != 0),
        Dtype::U8 => Number::Int((*bytes.first()?).into()),
        Dtype::I8 => Number::Int(i8::from_ne_bytes(read(bytes, 0)?).into()),
        Dtype::I16 => Number::Int(i16::from_ne_bytes(read(bytes, 0)?).into()),
        Dtype::I32 => Number::Int(i32::from_ne_bytes(read(bytes, 0)?).into()),
        Dtype::I64 => Number::Int(i64::from_ne_bytes(read(bytes, 0)?)),
        Dtype::F32 => Number::Float(f32::from_ne_bytes(read(bytes, 0)?).into()),
        Dtype::F64 => Number::Float(f64::from_ne_bytes(read(bytes, 0)?)),
        Dtype::F16 => Number::Float(f16::from_ne_bytes(read(bytes, 0)?).into()),
        Dtype::Bf16 => Number::Float(half::bf16::from_ne_bytes(read(bytes, 0)?).into()),
        _ => return None,
    })
}

/// Sixteen bytes filled with repetitions of one element.
fn repeat(element: &[u8]) -> [u64; 2] {
    let mut bytes = [0u8; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = element[at % element.len()];
    }
    words(bytes)
}

fn words(bytes: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_ne_bytes(bytes);
    [whole as u64, (whole >> 64) as u64]
}

fn floats(re: f32, im: f32) -> [u64; 2] {
    [u64::from(re.to_bits()) | (u64::from(im.to_bits()) << 32), 0]
}

/// A number in the form in which the kernels take it.
pub fn number(op: Op, dtype: Dtype, number: Number) -> Option<[u64; 2]> {
    match op {
        Op::Zero => Some([0; 2]),
        Op::Replace => replaced(dtype, number),
        Op::Add => added(dtype, number),
    }
}

/// The element that libtorch would write. Our own CPU code computes it, which is the reference.
fn replaced(dtype: Dtype, number: Number) -> Option<[u64; 2]> {
    if let Some(element) = small(dtype, number) {
        return Some(repeat(&element));
    }
    let mut element = [0u128; 1];
    // SAFETY: one element of at most 16 bytes, aligned to 16, of this thread alone.
    let view = unsafe { View::new(element.as_mut_ptr().cast(), &[], &[], dtype) };
    let action = Action::Replace(Operand::Number(number));
    match cpu::apply(&view, &Slice::whole(), &action) {
        Ok(Outcome::Done) => Some(repeat(&element[0].to_ne_bytes()[..dtype.size()])),
        _ => None,
    }
}

/// Elements of the dtypes that the CPU code leaves to libtorch.
fn small(dtype: Dtype, number: Number) -> Option<Vec<u8>> {
    let (re, im) = match number {
        Number::Complex(re, im) if dtype == Dtype::C32 => (re, im),
        Number::Complex(..) => return None,
        Number::Bool(value) => (f64::from(u8::from(value)), 0.0),
        Number::Int(value) => (f64::from(value as f32), 0.0),
        Number::Float(value) => (value, 0.0),
    };
    let most = match dtype {
        Dtype::C32 => 65504.0,
        Dtype::F8E4m3fn => 448.0,
        Dtype::F8E5m2 | Dtype::F8E5m2fnuz => 57344.0,
        Dtype::F8E4m3fnuz => 240.0,
        _ => return None,
    };
    // libtorch calls a larger number an overflow, or its dtype has no such value.
    if !(re.abs() <= most && im.abs() <= most) {
        return None;
    }
    Some(match dtype {
        Dtype::C32 => {
            let [a, b] = [re, im].map(|part| f16::from_f32(part as f32).to_ne_bytes());
            [a, b].concat()
        }
        Dtype::F8E4m3fn => vec![float8(re as f32, 3, 7, true)],
        Dtype::F8E5m2 => vec![float8(re as f32, 2, 15, true)],
        Dtype::F8E4m3fnuz => vec![float8(re as f32, 3, 8, false)],
        _ => vec![float8(re as f32, 2, 16, false)],
    })
}

/// A float that is in range, in 8 bits: to nearest, ties to even.
fn float8(value: f32, mantissa: i32, bias: i32, signed_zero: bool) -> u8 {
    let size = f64::from(value.abs());
    let exponent = (size.log2().floor() as i32).max(1 - bias);
    let unit = 2f64.powi(exponent - mantissa);
    let steps = (size / unit).round_ties_even() as i32;
    // The hidden bit carries into the exponent by itself.
    let rest = if steps == 0 {
        0
    } else {
        ((exponent + bias - 1) << mantissa) + steps
    };
    if value.is_sign_negative() && (signed_zero || rest != 0) {
        rest as u8 | 0x80
    } else {
        rest as u8
    }
}

/// The number to add, in the type in which libtorch computes on a card. It is rounded once, not to 16 bits before that.
fn added(dtype: Dtype, number: Number) -> Option<[u64; 2]> {
    let real = match number {
        Number::Bool(value) => Some(f64::from(u8::from(value))),
        Number::Int(value) => Some(value as f64),
        Number::Float(value) => Some(value),
        Number::Complex(..) => None,
    };
    let single = |value: f64| {
        (!value.is_finite() || value.abs() <= f64::from(f32::MAX)).then_some(value as f32)
    };
    let short = || match number {
        Number::Int(value) => Some(value as f32),
        _ => single(real?),
    };
    match (class(dtype)?, dtype.size()) {
        (Class::Bool, _) => match number {
            Number::Bool(value) => Some(repeat(&[value.into()])),
            _ => None,
        },
        (Class::Whole, _) => match number {
            // A number out of the dtype's range is left to libtorch.
            Number::Bool(_) | Number::Int(_) => replaced(dtype, number),
            _ => None,
        },
        (Class::Real, 8) => real.map(|n| [n.to_bits(); 2]),
        (Class::Real, _) => short().map(|n| floats(n, n)),
        (Class::Complex, 16) => match number {
            Number::Complex(re, im) => Some([re.to_bits(), im.to_bits()]),
            _ => real.map(|n| [n.to_bits(), 0]),
        },
        (Class::Complex, _) => match number {
            Number::Complex(re, im) => Some(floats(single(re)?, single(im)?)),
            _ => short().map(|n| floats(n, 0.0)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.promote_types, as torch 2.11 has it.
    #[test]
    fn promotes_as_libtorch_does() {
        use Dtype::*;
        for (a, b, both) in [
            (Bool, I8, I8),
            (U8, I8, I16),
            (U8, I32, I32),
            (I64, F16, F16),
            (F16, Bf16, F32),
            (Bf16, F32, F32),
            (F32, F64, F64),
            (F32, C32, C64),
            (F16, C32, C32),
            (Bf16, C32, C64),
            (F64, C64, C128),
            (I64, C64, C64),
            (C32, C128, C128),
            (Bool, Bf16, Bf16),
            (U8, I16, I16),
        ] {
            assert_eq!(wider(a, b), Some(both), "{a:?} {b:?}");
            assert_eq!(wider(b, a), Some(both), "{b:?} {a:?}");
        }
        assert_eq!(common(I32, F32), None);
        assert_eq!(common(F32, I64), Some(F32));
        assert_eq!(common(Bool, I8), None);
        assert_eq!(common(F32, C64), None);
        assert_eq!(common(F8E5m2, F8E5m2), None);
    }

    #[test]
    fn what_libtorch_versions_convert_differently_is_left_to_them() {
        use Dtype::*;
        for fits in [F8E4m3fn, F8E4m3fnuz, Bool, U8, I8] {
            assert!(converts(F8E4m3fn, fits), "{fits:?}");
        }
        for large in [F8E5m2, F8E5m2fnuz, F16, F32, I16, U64, C64] {
            assert!(!converts(F8E4m3fn, large), "{large:?}");
        }
        assert!(converts(F8E5m2, F32) && converts(C32, C64) && !converts(F32, C64));
    }

    #[test]
    fn numbers_are_the_bytes_that_libtorch_writes() {
        let element = |dtype, n| number(Op::Replace, dtype, n).map(|words| words[0] as u8);
        assert_eq!(element(Dtype::F8E4m3fn, Number::Float(0.3)), Some(0x2a));
        assert_eq!(element(Dtype::F8E5m2, Number::Float(-448.0)), Some(0xdf));
        assert_eq!(element(Dtype::F8E4m3fnuz, Number::Float(-0.0)), Some(0x00));
        assert_eq!(element(Dtype::F8E4m3fn, Number::Float(1e4)), None);
        assert_eq!(
            number(Op::Replace, Dtype::I16, Number::Int(-2)),
            Some([0xfffe_fffe_fffe_fffe; 2])
        );
        assert_eq!(number(Op::Add, Dtype::I16, Number::Float(0.5)), None);
        assert_eq!(number(Op::Add, Dtype::I16, Number::Int(70000)), None);
        assert_eq!(
            number(Op::Add, Dtype::F16, Number::Float(0.1)),
            Some(floats(0.1, 0.1))
        );
        assert_eq!(
            number(Op::Add, Dtype::C64, Number::Int(2)),
            Some(floats(2.0, 0.0))
        );
        assert_eq!(number(Op::Replace, Dtype::F16, Number::Float(1e6)), None);
    }
}
