//! Actions on CPU memory, and the reference that kernels for other devices are judged by.
//!
//! Results equal those of libtorch's `tensor[slice] = value` and `tensor[slice] += value` to the bit. Cases in which
//! libtorch could refuse the value are left to libtorch.

use half::{bf16, f16};

use super::rows::Rows;
use super::view::View;
use super::{Outcome, pair};
use graphpatch_core::error::Result;
use graphpatch_core::patch::Number;
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::path::Slice;
use graphpatch_core::tensor::Dtype;

/// Applies the action to the slice of the view.
///
/// # Errors
///
/// [`graphpatch_core::error::Error::Slice`] when the slice does not fit the view's shape; nothing was written then.
pub fn apply(view: &View<'_>, slice: &Slice, action: &Action) -> Result<Outcome> {
    let region = slice.region(view.sizes, view.strides)?;
    let rows = || Rows::new(view, &region);
    Ok(match action {
        Action::Zero => zero(&rows(), view.dtype),
        Action::Replace(Operand::Number(number)) => replace(&rows(), view.dtype, *number),
        Action::Add(Operand::Number(number)) => add(&rows(), view.dtype, *number),
        Action::Replace(Operand::Host(value)) => pair::replace(view, &region, value),
        Action::Add(Operand::Host(value)) => pair::add(view, &region, value),
        _ => Outcome::Unsupported,
    })
}

fn zero(rows: &Rows, dtype: Dtype) -> Outcome {
    match dtype.size() {
        1 => rows.zero(0u8),
        2 => rows.zero(0u16),
        4 => rows.zero(0u32),
        // Complex numbers of two floats need no more than a float's alignment.
        8 if dtype == Dtype::C64 => rows.zero([0u32; 2]),
        8 => rows.zero(0u64),
        _ => rows.zero([0u64; 2]),
    }
    Outcome::Done
}

/// The integer that a number is, for dtypes that hold integers.
fn integer(number: Number) -> Option<i64> {
    match number {
        Number::Bool(value) => Some(value.into()),
        Number::Int(value) => Some(value),
        // A float written into integers is cut towards zero, as libtorch does. Floats above 9e15, near 2^53, are left to
        // libtorch.
        Number::Float(value) if value.abs() < 9e15 => Some(value.trunc() as i64),
        _ => None,
    }
}

/// The real number that a number is.
fn real(number: Number) -> Option<f64> {
    match number {
        Number::Bool(value) => Some(f64::from(u8::from(value))),
        Number::Int(value) => Some(value as f64),
        Number::Float(value) => Some(value),
        Number::Complex(..) => None,
    }
}

/// A real number as f32. `None` if libtorch would call the conversion an overflow.
fn single(number: Number, max: f64) -> Option<f32> {
    let value = match number {
        // libtorch converts the integer itself
        Number::Int(value) => return (value.unsigned_abs() as f64 <= max).then_some(value as f32),
        _ => real(number)?,
    };
    (!value.is_finite() || value.abs() <= max).then_some(value as f32)
}

const F16_MAX: f64 = 65504.0;

fn replace(rows: &Rows, dtype: Dtype, number: Number) -> Outcome {
    macro_rules! int {
        ($type:ty) => {
            integer(number)
                // 255.5 is too large for a byte before it is cut.
                .filter(|_| match number {
                    Number::Float(n) => (<$type>::MIN as f64..=<$type>::MAX as f64).contains(&n),
                    _ => true,
                })
                .and_then(|n| <$type>::try_from(n).ok())
                .map(|n| rows.fill(n))
        };
    }
    let done = match dtype {
        Dtype::Bool => match number {
            Number::Complex(..) => None,
            _ => real(number).map(|n| rows.fill(u8::from(n != 0.0))),
        },
        Dtype::U8 => int!(u8),
        Dtype::I8 => int!(i8),
        Dtype::I16 => int!(i16),
        Dtype::I32 => int!(i32),
        Dtype::I64 => int!(i64),
        Dtype::U16 => int!(u16),
        Dtype::U32 => int!(u32),
        Dtype::U64 => int!(u64),
        Dtype::F16 => single(number, F16_MAX).map(|n| rows.fill(f16::from_f32(n))),
        Dtype::Bf16 => single(number, f32::MAX.into()).map(|n| rows.fill(bf16::from_f32(n))),
        Dtype::F32 => single(number, f32::MAX.into()).map(|n| rows.fill(n)),
        Dtype::F64 => real(number).map(|n| rows.fill(n)),
        Dtype::C64 => match number {
            Number::Complex(re, im) => single(Number::Float(re), f32::MAX.into())
                .zip(single(Number::Float(im), f32::MAX.into()))
                .map(|(re, im)| rows.fill([re, im])),
            _ => single(number, f32::MAX.into()).map(|n| rows.fill([n, 0.0f32])),
        },
        Dtype::C128 => match number {
            Number::Complex(re, im) => {
                rows.fill([re, im]);
                Some(())
            }
            _ => real(number).map(|n| rows.fill([n, 0.0f64])),
        },
        Dtype::C32 | Dtype::F8E4m3fn | Dtype::F8E5m2 | Dtype::F8E4m3fnuz | Dtype::F8E5m2fnuz => {
            None
        }
    };
    done.map_or(Outcome::Unsupported, |()| Outcome::Done)
}

fn add(rows: &Rows, dtype: Dtype, number: Number) -> Outcome {
    // Adding a float to an integer would change its dtype, which libtorch refuses.
    let whole = match number {
        Number::Float(_) | Number::Complex(..) => None,
        _ => integer(number),
    };
    macro_rules! int {
        ($type:ty) => {
            whole
                .and_then(|n| <$type>::try_from(n).ok())
                .map(|n| rows.map(move |old: $type| old.wrapping_add(n)))
        };
    }
    let max = f64::from(f32::MAX);
    let done = match dtype {
        Dtype::Bool => match number {
            Number::Bool(value) => {
                rows.map(move |old: u8| u8::from(old != 0 || value));
                Some(())
            }
            _ => None,
        },
        Dtype::U8 => int!(u8),
        Dtype::I8 => int!(i8),
        Dtype::I16 => int!(i16),
        Dtype::I32 => int!(i32),
        Dtype::I64 => int!(i64),
        // libtorch rounds the number to the tensor's dtype, adds in 32 bits, and rounds again.
        Dtype::F16 => single(number, max).map(|n| {
            let n = f16::from_f32(n).to_f32();
            rows.map(move |old: f16| f16::from_f32(old.to_f32() + n));
        }),
        Dtype::Bf16 => single(number, max).map(|n| {
            let n = bf16::from_f32(n).to_f32();
            rows.map(move |old: bf16| bf16::from_f32(old.to_f32() + n));
        }),
        Dtype::F32 => single(number, max).map(|n| rows.map(move |old: f32| old + n)),
        Dtype::F64 => real(number).map(|n| rows.map(move |old: f64| old + n)),
        Dtype::U16
        | Dtype::U32
        | Dtype::U64
        | Dtype::C32
        | Dtype::C64
        | Dtype::C128
        | Dtype::F8E4m3fn
        | Dtype::F8E5m2
        | Dtype::F8E4m3fnuz
        | Dtype::F8E5m2fnuz => None,
    };
    done.map_or(Outcome::Unsupported, |()| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies to a copy of 0..n as f32 with the given shape; returns the memory.
    fn run(sizes: &[i64], strides: &[i64], n: usize, slice: &str, action: Action) -> Vec<f32> {
        let mut memory: Vec<f32> = (0..n).map(|i| i as f32).collect();
        // SAFETY: the tests' shapes stay inside `memory`.
        let view = unsafe { View::new(memory.as_mut_ptr().cast(), sizes, strides, Dtype::F32) };
        let outcome = apply(&view, &slice.parse().unwrap(), &action).unwrap();
        assert_eq!(outcome, Outcome::Done);
        memory
    }

    #[test]
    fn touches_the_slice_and_nothing_else() {
        let zeroed = run(&[2, 3], &[3, 1], 6, "[:, 1]", Action::Zero);
        assert_eq!(zeroed, [0.0, 0.0, 2.0, 3.0, 0.0, 5.0]);
        let transposed = run(
            &[3, 2],
            &[1, 3],
            6,
            "[1:]",
            Action::Add(Operand::Number(Number::Int(10))),
        );
        assert_eq!(transposed, [0.0, 11.0, 12.0, 3.0, 14.0, 15.0]);
        let gaps = run(
            &[2, 2],
            &[4, 1],
            6,
            "[...]",
            Action::Replace(Operand::Number(Number::Float(-1.0))),
        );
        assert_eq!(gaps, [-1.0, -1.0, 2.0, 3.0, -1.0, -1.0]);
        let nothing = run(&[2, 3], &[3, 1], 6, "[2:]", Action::Zero);
        assert_eq!(nothing, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let scalar = run(
            &[],
            &[],
            1,
            "[...]",
            Action::Add(Operand::Number(Number::Float(0.5))),
        );
        assert_eq!(scalar, [0.5]);
    }

    #[test]
    fn leaves_what_libtorch_may_refuse() {
        let mut memory = [7i64; 4];
        // SAFETY: four elements, shape [4].
        let view = unsafe { View::new(memory.as_mut_ptr().cast(), &[4], &[1], Dtype::I64) };
        let whole = Slice::whole();
        let refused = Action::Add(Operand::Number(Number::Float(0.5)));
        assert_eq!(
            apply(&view, &whole, &refused).unwrap(),
            Outcome::Unsupported
        );
        let cut = Action::Replace(Operand::Number(Number::Float(-1.9)));
        assert_eq!(apply(&view, &whole, &cut).unwrap(), Outcome::Done);
        assert_eq!(memory, [-1; 4]);
    }

    use graphpatch_core::layout;
    use graphpatch_core::path::Item;
    use graphpatch_core::tensor::HostTensor;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn any_item() -> impl Strategy<Value = Item> {
        let bound = || prop::option::of(-5..5i64);
        prop_oneof![
            (-3..3i64).prop_map(Item::Index),
            (bound(), bound(), prop::option::of(1..3i64))
                .prop_map(|(start, stop, step)| Item::Range { start, stop, step }),
            Just(Item::NewAxis),
        ]
    }

    /// Sizes and strides of a tensor whose dimensions lie in any order in memory, with gaps between them, and the number of
    /// elements that it spans.
    fn any_tensor() -> impl Strategy<Value = (Vec<i64>, Vec<i64>, usize)> {
        let order = Just(vec![0, 1, 2]).prop_shuffle();
        (prop::collection::vec(1..5i64, 3), order, 0..3i64).prop_map(|(sizes, order, gap)| {
            let (mut strides, mut step) = (vec![0; 3], 1);
            for d in order {
                strides[d] = step;
                step = step * sizes[d] + gap;
            }
            let (_, last) = layout::span(&sizes, &strides).unwrap();
            (sizes, strides, last as usize + 1)
        })
    }

    /// Miri takes a thousand times as long for each case.
    fn cases() -> ProptestConfig {
        match cfg!(miri) {
            true => ProptestConfig {
                failure_persistence: None,
                ..ProptestConfig::with_cases(12)
            },
            false => ProptestConfig::default(),
        }
    }

    proptest! {
        #![proptest_config(cases())]

        /// Each selected element is changed exactly once, with the value's element for it, and no other element is changed.
        #[test]
        fn actions_are_the_naive_ones(
            (sizes, strides, n) in any_tensor(), items in prop::collection::vec(any_item(), 0..4), repeat in any::<[bool; 3]>(),
        ) {
            let slice = Slice(items);
            let Ok(region) = slice.region(&sizes, &strides) else { return Ok(()) };
            let shape: Vec<i64> = region.sizes.iter().zip(repeat.iter().cycle()).map(|(size, one)| if *one { 1 } else { *size }).collect();
            let mut value = HostTensor::zeros(Dtype::F32, &shape).unwrap();
            for (at, element) in bytemuck::cast_slice_mut::<u8, f32>(value.bytes_mut()).iter_mut().enumerate() {
                *element = 100.0 + at as f32;
            }
            let values: Vec<f32> = bytemuck::cast_slice(value.bytes()).to_vec();
            let operand = Operand::Host(Arc::new(value));
            let run = |action| {
                let mut memory: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let view = View::over(&mut memory, &sizes, &strides, Dtype::F32).unwrap();
                assert_eq!(apply(&view, &slice, &action).unwrap(), Outcome::Done);
                memory
            };
            let naive = |change: &dyn Fn(f32, f32) -> f32| {
                let mut memory: Vec<f32> = (0..n).map(|i| i as f32).collect();
                for number in 0..region.numel() {
                    let position = layout::coordinates(number, &region.sizes);
                    let at: i64 = region.offset + position.iter().zip(&region.strides).map(|(at, step)| at * step).sum::<i64>();
                    let own: i64 = position.iter().zip(&shape).fold(0, |own, (at, size)| own * size + at.min(&(size - 1)));
                    memory[at as usize] = change(memory[at as usize], values[own as usize]);
                }
                memory
            };
            prop_assert_eq!(run(Action::Zero), naive(&|_, _| 0.0));
            prop_assert_eq!(run(Action::Add(Operand::Number(Number::Int(2)))), naive(&|old, _| old + 2.0));
            prop_assert_eq!(run(Action::Replace(operand.clone())), naive(&|_, new| new));
            prop_assert_eq!(run(Action::Add(operand)), naive(&|old, new| old + new));
        }
    }
}
