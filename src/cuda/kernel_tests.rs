//! The kernels' own source against the CPU reference, with random shapes, strides, slices, dtypes and values. Every byte is
//! compared, including those outside of the region.

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Value;
use super::bench::{Bench, content, reference, same, sliced, span};
use super::work::{Kernel, Path};
use graphpatch_apply::Outcome;
use graphpatch_core::patch::action::{Action, ForeignTensor, Operand};
use graphpatch_core::patch::{Number, Patch};
use graphpatch_core::path::Slice;
use graphpatch_core::tensor::{Dtype, HostTensor};

/// Stands for a tensor of libtorch's. The test gives the queue the memory that the kernels read for it.
#[derive(Debug)]
struct Elsewhere;

impl ForeignTensor for Elsewhere {}

/// Sizes, and strides of a permuted, padded or stepped layout that does not overlap itself.
fn layout() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
    let dims = prop::collection::vec((1..7i64, 1..3i64, 0..5i64), 0..5);
    (dims, any::<u64>()).prop_map(|(dims, order)| {
        let mut sequence: Vec<usize> = (0..dims.len()).collect();
        let mut seed = order;
        for at in (1..sequence.len()).rev() {
            sequence.swap(at, (seed % (at as u64 + 1)) as usize);
            seed /= at as u64 + 1;
        }
        let mut strides = vec![0; dims.len()];
        let mut step = 1;
        for d in sequence {
            let (size, gap, pad) = dims[d];
            step *= if order % 3 == 0 { 1 } else { gap };
            strides[d] = step;
            step = step * size + if order % 3 == 0 { 0 } else { pad };
        }
        (dims.iter().map(|d| d.0).collect(), strides)
    })
}

fn slice_text() -> impl Strategy<Value = String> {
    let item = prop_oneof![
        3 => Just(":".to_owned()), 2 => Just("...".to_owned()), 1 => Just("None".to_owned()),
        2 => (-3..3i64).prop_map(|n| n.to_string()),
        2 => (0..4i64, 1..3i64).prop_map(|(from, step)| format!("{from}::{step}")),
        1 => (-4..0i64).prop_map(|from| format!("{from}:")),
    ];
    prop::collection::vec(item, 0..4).prop_map(|items| {
        if items.is_empty() {
            String::new()
        } else {
            format!("[{}]", items.join(", "))
        }
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

#[derive(Clone, Copy, Debug)]
enum PatchKind {
    Zero,
    Add(Number),
    Replace(Number),
    AddTensor,
    ReplaceTensor,
}

fn what() -> impl Strategy<Value = PatchKind> {
    // Only numbers that a 16-bit float can hold: the CPU rounds a number to 16 bits before it adds, a card does not.
    let number = || {
        prop_oneof![
            (-100..100i64).prop_map(Number::Int),
            (-64..64i64).prop_map(|n| Number::Float(n as f64 / 8.0)),
            any::<bool>().prop_map(Number::Bool)
        ]
    };
    prop_oneof![
        Just(PatchKind::Zero),
        number().prop_map(PatchKind::Add),
        number().prop_map(PatchKind::Replace),
        Just(PatchKind::AddTensor),
        Just(PatchKind::ReplaceTensor),
    ]
}

#[test]
fn random_patches_are_the_references_to_the_byte() {
    let bench = Bench::new();
    let (done, tensors) = (Cell::new(0), Cell::new(0));
    let cases = (
        layout(),
        slice_text(),
        prop::sample::select(Dtype::ALL.to_vec()),
        what(),
        any::<u64>(),
        0..4usize,
    );
    runner(1500)
        .run(
            &cases,
            |((sizes, strides), slice, dtype, what, seed, shift)| {
                let count = span(&sizes, &strides);
                let before = content(dtype, count, seed);
                let memory = bench.place(dtype, &sizes, &strides, shift, &before);
                let parsed: Slice = slice.parse().unwrap();
                let Ok(region) = parsed.region(&sizes, &strides) else {
                    bench.free(&memory);
                    return Ok(());
                };
                // A value of the region's shape, or one that broadcasts to it.
                let mut shape: Vec<i64> = region.sizes.to_vec();
                if seed % 3 == 1 && !shape.is_empty() {
                    let d = (seed / 3) as usize % shape.len();
                    shape[d] = 1;
                }
                if seed % 3 == 2 && !shape.is_empty() {
                    shape.remove(0);
                }
                let tensor = || {
                    let mut value = HostTensor::zeros(dtype, &shape).unwrap();
                    let bytes = value.bytes().len();
                    value.bytes_mut().copy_from_slice(&content(
                        dtype,
                        bytes / dtype.size(),
                        seed ^ 77,
                    ));
                    Operand::Host(Arc::new(value))
                };
                let action = match what {
                    PatchKind::Zero => Action::Zero,
                    PatchKind::Add(n) => Action::Add(Operand::Number(n)),
                    PatchKind::Replace(n) => Action::Replace(Operand::Number(n)),
                    PatchKind::AddTensor => Action::Add(tensor()),
                    PatchKind::ReplaceTensor => Action::Replace(tensor()),
                };
                let mut expected = before.clone();
                let outcome = reference(&mut expected, &memory, &parsed, &action);
                let patch = sliced(&slice, action);
                let ours = bench.run(&[&patch], &memory, None);
                let after = bench.read(&memory);
                drop(patch);
                bench.free(&memory);
                if outcome == Some(Outcome::Done) {
                    prop_assert!(ours, "the CPU does it, the card does not");
                }
                if outcome == Some(Outcome::Done) && ours {
                    done.set(done.get() + 1);
                    tensors.set(
                        tensors.get()
                            + i32::from(matches!(
                                what,
                                PatchKind::AddTensor | PatchKind::ReplaceTensor
                            )),
                    );
                    prop_assert!(same(dtype, &after, &expected), "{after:?}\n{expected:?}");
                }
                Ok(())
            },
        )
        .unwrap();
    let kernels = bench.kernels();
    for path in [Path::Dense, Path::Strided] {
        for kernel in [Kernel::Zero(path), Kernel::Add(path), Kernel::Replace(path)] {
            assert!(kernels.contains(&kernel), "{kernel:?} never ran");
        }
    }
    assert!(
        done.get() > 500 && tensors.get() > 100,
        "{done:?}, {tensors:?}"
    );
}

/// The value is a tensor that libtorch holds, transposed. The kernels use its strides as they are.
#[test]
fn a_tensor_of_libtorchs_own_is_read_where_it_lies() {
    let bench = Bench::new();
    let foreign = || Operand::Foreign(Arc::new(Elsewhere));
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::C64, Dtype::I8] {
        let before = content(dtype, 24, 3);
        let numbers = content(dtype, 24, 4);
        let held = bench.place(dtype, &[6, 4], &[4, 1], 0, &numbers);
        let value = Value {
            address: held.address,
            dtype,
            sizes: &[4, 6],
            strides: Some(&[1, 4]),
        };
        // The same for the CPU code, which wants it row-major.
        let mut dense = HostTensor::zeros(dtype, &[4, 6]).unwrap();
        let size = dtype.size();
        for at in 0..24 {
            let from = ((at % 6) * 4 + at / 6) * size;
            dense.bytes_mut()[at * size..][..size].copy_from_slice(&numbers[from..][..size]);
        }
        let dense = Operand::Host(Arc::new(dense));
        for (ours, theirs) in [
            (Action::Replace(foreign()), Action::Replace(dense.clone())),
            (Action::Add(foreign()), Action::Add(dense)),
        ] {
            let memory = bench.place(dtype, &[4, 6], &[6, 1], 0, &before);
            let mut expected = before.clone();
            let outcome = reference(&mut expected, &memory, &Slice::whole(), &theirs);
            assert!(bench.run(&[&sliced("", ours)], &memory, Some(value)));
            if outcome == Some(Outcome::Done) {
                assert!(same(dtype, &bench.read(&memory), &expected), "{dtype:?}");
            }
            bench.free(&memory);
        }
        bench.free(&held);
    }
}

#[test]
fn long_rows_take_every_path_of_the_dense_kernels() {
    let bench = Bench::new();
    for dtype in Dtype::ALL {
        for (count, shift) in [
            (1, 0),
            (15, 1),
            (16, 0),
            (37, 3),
            (4096, 0),
            (20_011, 1),
            (33_000, 5),
        ] {
            let before = content(dtype, count, count as u64);
            let mut value = HostTensor::zeros(dtype, &[count as i64]).unwrap();
            value.bytes_mut().copy_from_slice(&content(dtype, count, 5));
            let value = Operand::Host(Arc::new(value));
            for action in [
                Action::Zero,
                Action::Replace(Operand::Number(Number::Int(1))),
                Action::Add(Operand::Number(Number::Int(1))),
                Action::Replace(value.clone()),
                Action::Add(value),
            ] {
                let memory = bench.place(dtype, &[count as i64], &[1], shift, &before);
                let mut expected = before.clone();
                let outcome = reference(&mut expected, &memory, &Slice::whole(), &action);
                if bench.run(&[&sliced("", action.clone())], &memory, None)
                    && outcome == Some(Outcome::Done)
                {
                    assert!(
                        same(dtype, &bench.read(&memory), &expected),
                        "{dtype:?} {count} {action:?}"
                    );
                } else {
                    assert_ne!(outcome, Some(Outcome::Done), "{dtype:?} {action:?}");
                }
                bench.free(&memory);
            }
        }
    }
}

#[test]
fn several_patches_act_in_order_and_together_where_they_can() {
    let bench = Bench::new();
    let number = |n| Operand::Number(Number::Int(n));
    let sets: [(&[(&str, Action)], usize); 4] = [
        (
            &[
                ("[..., 0]", Action::Zero),
                ("[..., 1]", Action::Add(number(3))),
                ("[..., 2]", Action::Replace(number(4))),
            ],
            1,
        ),
        (
            &[
                ("", Action::Zero),
                ("[1]", Action::Add(number(3))),
                ("[0]", Action::Add(number(5))),
            ],
            2,
        ),
        (
            &[("", Action::Add(number(1))), ("", Action::Add(number(2)))],
            2,
        ),
        (
            &[
                ("[:, :4]", Action::Zero),
                ("[:, 4:]", Action::Replace(number(2))),
            ],
            1,
        ),
    ];
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8, Dtype::C64] {
        for (patches, launches) in &sets {
            let before = content(dtype, 4 * 16, 9);
            let memory = bench.place(dtype, &[4, 16], &[16, 1], 0, &before);
            let mut expected = before.clone();
            let made: Vec<Arc<Patch>> = patches
                .iter()
                .map(|(slice, action)| sliced(slice, action.clone()))
                .collect();
            let mut known = true;
            for (slice, action) in *patches {
                known &= reference(&mut expected, &memory, &slice.parse().unwrap(), action)
                    == Some(Outcome::Done);
            }
            bench.state.take();
            assert!(bench.run(&made.iter().collect::<Vec<_>>(), &memory, None));
            assert_eq!(bench.kernels().len(), *launches, "{patches:?}");
            if known {
                assert!(
                    same(dtype, &bench.read(&memory), &expected),
                    "{dtype:?} {patches:?}"
                );
            }
            bench.free(&memory);
        }
    }
}
