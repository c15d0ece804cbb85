//! Index tensors and masks through the kernels' own source.

use std::sync::Arc;

use super::bench::{Bench, patch};
use graphpatch_core::patch::Number;
use graphpatch_core::patch::action::{Action, Operand, Pick};
use graphpatch_core::path::Slice;
use graphpatch_core::tensor::{Dtype, HostTensor};

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

/// Each case has the flat indices of the elements that `tensor[index]` picks from a row-major tensor of shape (3, 4, 5), as
/// torch 2.11 computes them.
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
    // An index out of range, or a mask of another shape: libtorch says why. A sum that picks an element twice: libtorch does
    // it.
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
