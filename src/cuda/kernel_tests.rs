//! The kernels' own source against the CPU reference: random shapes, strides, slices, dtypes and values, from the plan
//! to the last byte, everything outside the region included.

use std::cell::Cell;
use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::fake::{self, Call, State};
use super::work::{Kernel, Path};
use super::{Cuda, Planned, Queue, Tensor, Value};
use crate::apply::{Outcome, View, cpu};
use crate::patch::action::{Action, NewPatch, Operand, Pick};
use crate::patch::{Number, Patch};
use crate::path::Slice;
use crate::tensor::{Dtype, HostTensor};

const ALL: [Dtype; 20] = [
    Dtype::Bool,
    Dtype::U8,
    Dtype::I8,
    Dtype::I16,
    Dtype::I32,
    Dtype::I64,
    Dtype::U16,
    Dtype::U32,
    Dtype::U64,
    Dtype::F16,
    Dtype::Bf16,
    Dtype::F32,
    Dtype::F64,
    Dtype::C32,
    Dtype::C64,
    Dtype::C128,
    Dtype::F8E4m3fn,
    Dtype::F8E5m2,
    Dtype::F8E4m3fnuz,
    Dtype::F8E5m2fnuz,
];

pub fn patch(picks: Vec<Pick>, action: Action) -> Arc<Patch> {
    let zero = NewPatch::zero("x".parse().unwrap());
    Arc::new(Patch::new(
        1,
        NewPatch {
            picks,
            action,
            ..zero
        },
    ))
}

pub fn sliced(slice: &str, action: Action) -> Arc<Patch> {
    let slice: Slice = slice.parse().unwrap();
    patch(slice.0.into_iter().map(Pick::Item).collect(), action)
}

/// A tensor on the emulated device: memory of exactly its span, with room for a misaligned start.
pub struct Memory {
    pub address: u64,
    pub bytes: usize,
    pub dtype: Dtype,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
    pub offset: usize,
}

impl Memory {
    pub fn tensor(&self) -> Tensor<'_> {
        Tensor {
            address: self.address + self.offset as u64,
            sizes: &self.sizes,
            strides: &self.strides,
            dtype: self.dtype,
            device: 0,
            stream: 5,
        }
    }
}

fn span(sizes: &[i64], strides: &[i64]) -> usize {
    if sizes.contains(&0) {
        return 0;
    }
    sizes
        .iter()
        .zip(strides)
        .map(|(n, step)| (n - 1) * step)
        .sum::<i64>() as usize
        + 1
}

/// Bytes that are valid elements: bools are 0 or 1, floats of every kind may come.
fn content(dtype: Dtype, count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::new();
    for _ in 0..count {
        let bits = next();
        let value = (bits % 2001) as f64 / 16.0 - 62.5;
        match dtype {
            Dtype::Bool => out.push((bits & 1) as u8),
            Dtype::F16 => out.extend(f16::from_f64(value).to_ne_bytes()),
            Dtype::Bf16 => out.extend(bf16::from_f64(value).to_ne_bytes()),
            Dtype::F32 => out.extend((value as f32 / 3.0).to_ne_bytes()),
            Dtype::F64 => out.extend((value / 3.0).to_ne_bytes()),
            _ => out.extend((0..dtype.size()).map(|_| next() as u8)),
        }
    }
    out
}

struct Bench {
    cuda: Arc<Cuda>,
    state: Arc<State>,
}

impl Bench {
    fn new() -> Bench {
        let (cuda, state) = fake::cuda(true);
        Bench { cuda, state }
    }

    fn place(
        &self,
        dtype: Dtype,
        sizes: &[i64],
        strides: &[i64],
        shift: usize,
        content: &[u8],
    ) -> Memory {
        let mut emulator = self.state.emulator.lock();
        let emulator = emulator.as_mut().unwrap();
        let offset = shift * dtype.size();
        let bytes = offset + content.len();
        let address = emulator.alloc(bytes);
        emulator.write(address + offset as u64, content);
        Memory {
            address,
            bytes,
            dtype,
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
            offset,
        }
    }

    fn read(&self, memory: &Memory) -> Vec<u8> {
        let mut emulator = self.state.emulator.lock();
        let bytes = memory.bytes - memory.offset;
        emulator
            .as_mut()
            .unwrap()
            .read(memory.address + memory.offset as u64, bytes)
    }

    fn free(&self, memory: &Memory) {
        self.state
            .emulator
            .lock()
            .as_mut()
            .unwrap()
            .free(memory.address);
    }

    /// Does the patches; `false` if one is libtorch's.
    fn run(&self, patches: &[&Arc<Patch>], memory: &Memory, foreign: Option<Value<'_>>) -> bool {
        let mut queue = Queue::default();
        for patch in patches {
            match queue
                .push(&self.cuda, patch, &memory.tensor(), foreign)
                .unwrap()
            {
                Planned::Queued => {}
                Planned::Elsewhere => return false,
            }
        }
        for (_, fault) in queue.flush(&self.cuda) {
            assert_eq!(fault, None);
        }
        true
    }

    fn kernels(&self) -> Vec<Kernel> {
        let calls = self.state.take();
        let kernel = |call: &Call| match call {
            Call::Launch { kernel, .. } => Some(*kernel),
            _ => None,
        };
        calls.iter().filter_map(kernel).collect()
    }
}

/// The same by the CPU code, in place.
fn reference(
    content: &mut [u8],
    memory: &Memory,
    slice: &Slice,
    action: &Action,
) -> Option<Outcome> {
    let mut aligned = HostTensor::zeros(Dtype::U8, &[content.len() as i64]).unwrap();
    aligned.bytes_mut().copy_from_slice(content);
    // SAFETY: sizes and strides reach `content.len()` bytes; the copy is aligned to 16.
    let view = unsafe {
        View::new(
            aligned.bytes_mut().as_mut_ptr(),
            &memory.sizes,
            &memory.strides,
            memory.dtype,
        )
    };
    let outcome = cpu::apply(&view, slice, action).ok();
    content.copy_from_slice(aligned.bytes());
    outcome
}

fn same(dtype: Dtype, a: &[u8], b: &[u8]) -> bool {
    let nan = |bytes: &[u8]| match dtype {
        Dtype::F16 => f16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        Dtype::Bf16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        _ => false,
    };
    let size = dtype.size();
    a.chunks(size)
        .zip(b.chunks(size))
        .all(|(x, y)| x == y || (nan(x) && nan(y)))
}

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
enum What {
    Zero,
    Add(Number),
    Replace(Number),
    AddTensor,
    ReplaceTensor,
}

fn what() -> impl Strategy<Value = What> {
    // Numbers that 16-bit floats hold: a card does not round them to 16 bits before it adds, the CPU does.
    let number = || {
        prop_oneof![
            (-100..100i64).prop_map(Number::Int),
            (-64..64i64).prop_map(|n| Number::Float(n as f64 / 8.0)),
            any::<bool>().prop_map(Number::Bool)
        ]
    };
    prop_oneof![
        Just(What::Zero),
        number().prop_map(What::Add),
        number().prop_map(What::Replace),
        Just(What::AddTensor),
        Just(What::ReplaceTensor),
    ]
}

#[test]
fn random_patches_are_the_references_to_the_byte() {
    let bench = Bench::new();
    let (done, tensors) = (Cell::new(0), Cell::new(0));
    let cases = (
        layout(),
        slice_text(),
        prop::sample::select(ALL.to_vec()),
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
                    What::Zero => Action::Zero,
                    What::Add(n) => Action::Add(Operand::Number(n)),
                    What::Replace(n) => Action::Replace(Operand::Number(n)),
                    What::AddTensor => Action::Add(tensor()),
                    What::ReplaceTensor => Action::Replace(tensor()),
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
                            + i32::from(matches!(what, What::AddTensor | What::ReplaceTensor)),
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

#[test]
fn long_rows_take_every_path_of_the_dense_kernels() {
    let bench = Bench::new();
    for dtype in ALL {
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

fn indices(dtype: Dtype, shape: &[i64], entries: &[i64]) -> Pick {
    let mut tensor = HostTensor::zeros(dtype, shape).unwrap();
    let bytes: Vec<u8> = match dtype {
        Dtype::I64 => entries.iter().flat_map(|n| n.to_ne_bytes()).collect(),
        Dtype::I32 => entries
            .iter()
            .flat_map(|n| (*n as i32).to_ne_bytes())
            .collect(),
        _ => entries.iter().map(|n| *n as u8).collect(),
    };
    tensor.bytes_mut().copy_from_slice(&bytes);
    Pick::tensor(Arc::new(tensor)).unwrap()
}

/// Each case with the flat places that `tensor[index]` has in a row-major tensor of shape (3, 4, 5), as torch 2.11 says.
#[test]
fn index_tensors_and_masks_pick_what_libtorch_picks() {
    let bench = Bench::new();
    let item = |text: &str| {
        text.parse::<Slice>()
            .unwrap()
            .0
            .into_iter()
            .map(Pick::Item)
            .collect::<Vec<_>>()
    };
    let at = |i: i64, j: i64, k: i64| i * 20 + j * 5 + k;
    let row = |i, j| (0..5).map(move |k| at(i, j, k)).collect::<Vec<_>>();
    let mask: Vec<i64> = (0..12).map(|n| i64::from(n % 5 == 0)).collect();
    let cases: Vec<(Vec<Pick>, Vec<i64>)> = vec![
        (
            vec![indices(Dtype::I64, &[2], &[2, 0])],
            [2, 0]
                .iter()
                .flat_map(|i| (0..4).flat_map(move |j| row(*i, j)))
                .collect(),
        ),
        (
            [item("[:]"), vec![indices(Dtype::I32, &[2], &[-1, -3])]].concat(),
            (0..3)
                .flat_map(|i| {
                    [3, 1]
                        .iter()
                        .flat_map(move |j| row(i, *j))
                        .collect::<Vec<_>>()
                })
                .collect(),
        ),
        (
            [
                vec![indices(Dtype::I64, &[2], &[0, 2])],
                item("[:]"),
                vec![indices(Dtype::I64, &[2], &[4, 1])],
            ]
            .concat(),
            [(0, 4), (2, 1)]
                .iter()
                .flat_map(|(i, k)| (0..4).map(move |j| at(*i, j, *k)))
                .collect(),
        ),
        (
            vec![indices(Dtype::Bool, &[3, 4], &mask)],
            [(0, 0), (1, 1), (2, 2)]
                .iter()
                .flat_map(|(i, j)| row(*i, *j))
                .collect(),
        ),
        ([item("[1, ..., None]"), vec![]].concat(), vec![]),
        (
            [
                item("[...]"),
                vec![indices(Dtype::U8, &[5], &[0, 1, 0, 0, 1])],
            ]
            .concat(),
            (0..12).flat_map(|n| [n * 5 + 1, n * 5 + 4]).collect(),
        ),
        (
            vec![
                indices(Dtype::I64, &[2, 1], &[0, 2]),
                indices(Dtype::I64, &[3], &[1, 2, 3]),
            ],
            [0, 2]
                .iter()
                .flat_map(|i| [1, 2, 3].iter().flat_map(move |j| row(*i, *j)))
                .collect(),
        ),
        (vec![indices(Dtype::Bool, &[3], &[0, 0, 0])], vec![]),
    ];
    for (picks, places) in cases {
        if picks.iter().all(|pick| matches!(pick, Pick::Item(_))) {
            continue;
        }
        let before: Vec<u8> = (0..60)
            .flat_map(|n: i32| (n as f32).to_ne_bytes())
            .collect();
        let memory = bench.place(Dtype::F32, &[3, 4, 5], &[20, 5, 1], 0, &before);
        assert!(bench.run(
            &[&patch(
                picks.clone(),
                Action::Add(Operand::Number(Number::Float(0.5)))
            )],
            &memory,
            None
        ));
        let floats = |bytes: Vec<u8>| {
            bytes
                .chunks(4)
                .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        let mut expected: Vec<f32> = (0..60).map(|n| n as f32).collect();
        for at in &places {
            expected[*at as usize] += 0.5;
        }
        assert_eq!(floats(bench.read(&memory)), expected, "{picks:?}");
        // Two masks' worth of cases have a result of the value's shape (3, 5).
        if places.len() == 15 {
            let mut value = HostTensor::zeros(Dtype::F32, &[3, 5]).unwrap();
            let floats_of = (0..15)
                .flat_map(|n| (n as f32 + 500.0).to_ne_bytes())
                .collect::<Vec<_>>();
            value.bytes_mut().copy_from_slice(&floats_of);
            let value = Operand::Host(Arc::new(value));
            assert!(bench.run(
                &[&patch(picks.clone(), Action::Replace(value))],
                &memory,
                None
            ));
            for (n, at) in places.iter().enumerate() {
                expected[*at as usize] = n as f32 + 500.0;
            }
            assert_eq!(floats(bench.read(&memory)), expected, "{picks:?}");
        }
        bench.free(&memory);
    }
    // Out of range, or a mask of another shape: libtorch says why. Twice the same element in a sum: libtorch does it.
    let memory = bench.place(Dtype::F32, &[3, 4, 5], &[20, 5, 1], 0, &[0; 240]);
    for (picks, action) in [
        (indices(Dtype::I64, &[1], &[3]), Action::Zero),
        (indices(Dtype::Bool, &[4], &[0, 0, 0, 0]), Action::Zero),
        (
            indices(Dtype::I64, &[2], &[1, 1]),
            Action::Add(Operand::Number(Number::Int(1))),
        ),
        (
            indices(Dtype::I64, &[2], &[2, -1]),
            Action::Add(Operand::Number(Number::Int(1))),
        ),
    ] {
        assert!(!bench.run(&[&patch(vec![picks], action)], &memory, None));
    }
}
