//! The calls that reach the driver: grids, arguments and the choice of a path, and that there are no other calls.

use std::sync::atomic::Ordering;

use super::bench::{patch, sliced};
use super::recording::{self, Call, Recording, State};
use super::status;
use super::work::{Kernel, Path};
use super::{Cuda, DeviceError, Planned, Queue, Tensor};
use graphpatch_core::patch::Number;
use graphpatch_core::patch::Patch;
use graphpatch_core::patch::action::{Action, Operand, Pick};
use graphpatch_core::tensor::{Dtype, HostTensor};
use std::sync::Arc;

const BASE: u64 = 0x7000_0000_0000;

pub fn tensor<'a>(sizes: &'a [i64], strides: &'a [i64], dtype: Dtype) -> Tensor<'a> {
    Tensor {
        address: BASE,
        sizes,
        strides,
        dtype,
        device: 0,
        stream: 42,
    }
}

pub fn host(dtype: Dtype, shape: &[i64]) -> Operand {
    Operand::Host(Arc::new(HostTensor::zeros(dtype, shape).unwrap()))
}

/// Pushes one patch, launches it, and returns the calls.
pub fn one(cuda: &Arc<Cuda>, state: &State, patch: &Arc<Patch>, tensor: &Tensor<'_>) -> Vec<Call> {
    let mut queue = Queue::default();
    assert_eq!(queue.push(cuda, patch, tensor, None), Ok(Planned::Queued));
    let outcomes = queue.flush(cuda);
    assert!(
        outcomes.iter().all(|(_, fault)| fault.is_none()),
        "{outcomes:?}"
    );
    state.take()
}

/// Kernel, grid, block, units, bytes of a unit.
type Shape = (Kernel, u32, u32, u64, u32);
/// Slice, sizes, strides, dtype, action, and the launch.
type Case = (
    &'static str,
    &'static [i64],
    &'static [i64],
    Dtype,
    Action,
    Shape,
);

fn launches(calls: &[Call]) -> Vec<Shape> {
    let launch = |call: &Call| match call {
        Call::Launch {
            kernel,
            grid,
            block,
            works,
            stream,
            context,
            ..
        } => {
            assert_eq!(
                (*stream, *context),
                (42, 100),
                "libtorch's stream, the device's context"
            );
            Some((*kernel, *grid, *block, works[0].units, works[0].unit))
        }
        _ => None,
    };
    calls.iter().filter_map(launch).collect()
}

#[test]
fn the_path_is_chosen_by_alignment_and_strides() {
    let (cuda, state) = recording::cuda(false);
    let add = |n| Action::Add(Operand::Number(Number::Int(n)));
    let cases: Vec<Case> = vec![
        // Dense: 16 bytes a unit, four of them in each thread.
        (
            "",
            &[1024, 1024],
            &[1024, 1],
            Dtype::F32,
            Action::Zero,
            (Kernel::Zero(Path::Dense), 32, 256, 262_144, 16),
        ),
        (
            "",
            &[64],
            &[1],
            Dtype::Bf16,
            add(1),
            (Kernel::Add(Path::Dense), 1, 32, 8, 16),
        ),
        // A permuted tensor without gaps is dense too.
        (
            "",
            &[3, 5, 7],
            &[1, 3, 15],
            Dtype::I64,
            Action::Zero,
            (Kernel::Zero(Path::Dense), 1, 64, 52, 16),
        ),
        // The memory begins one element off the alignment, so there are a head, whole units and a tail.
        (
            "[1:]",
            &[1024],
            &[1],
            Dtype::F32,
            add(1),
            (Kernel::Add(Path::Dense), 1, 256, 255, 16),
        ),
        // Rows that begin and end at multiples of 16 bytes.
        (
            "[:, :64]",
            &[32, 128],
            &[128, 1],
            Dtype::F16,
            Action::Zero,
            (Kernel::Zero(Path::Strided), 1, 256, 256, 16),
        ),
        // A column; rows of odd bytes.
        (
            "[..., 0]",
            &[32, 128],
            &[128, 1],
            Dtype::F16,
            Action::Zero,
            (Kernel::Zero(Path::Strided), 1, 32, 32, 2),
        ),
        (
            "[:, :63]",
            &[32, 128],
            &[128, 1],
            Dtype::F16,
            Action::Zero,
            (Kernel::Zero(Path::Strided), 8, 256, 2016, 2),
        ),
        // Another dtype is converted element by element.
        (
            "",
            &[32],
            &[1],
            Dtype::F16,
            Action::Replace(host(Dtype::F32, &[32])),
            (Kernel::Any, 1, 32, 32, 2),
        ),
        (
            "",
            &[32],
            &[1],
            Dtype::F32,
            Action::Replace(host(Dtype::F32, &[32])),
            (Kernel::Replace(Path::Dense), 1, 32, 8, 16),
        ),
        // A broadcast value has rows of its own.
        (
            "",
            &[8, 32],
            &[32, 1],
            Dtype::F32,
            Action::Replace(host(Dtype::F32, &[32])),
            (Kernel::Replace(Path::Strided), 1, 64, 64, 16),
        ),
        (
            "",
            &[8, 32],
            &[32, 1],
            Dtype::F32,
            Action::Add(host(Dtype::F32, &[8, 1])),
            (Kernel::Add(Path::Strided), 1, 256, 256, 4),
        ),
    ];
    for (slice, sizes, strides, dtype, action, expected) in cases {
        let patch = sliced(slice, action);
        let calls = one(&cuda, &state, &patch, &tensor(sizes, strides, dtype));
        assert_eq!(launches(&calls), [expected], "{slice} {sizes:?} {dtype:?}");
    }
    // An empty slice launches nothing.
    let calls = one(
        &cuda,
        &state,
        &sliced("[2:2]", Action::Zero),
        &tensor(&[4], &[1], Dtype::F32),
    );
    assert_eq!(launches(&calls), []);
}

#[test]
fn more_units_than_32_bits_count_are_cut() {
    let (cuda, state) = recording::cuda(false);
    let sizes = [5, 1 << 30, 1];
    let calls = one(
        &cuda,
        &state,
        &sliced("[..., 0]", Action::Zero),
        &tensor(&sizes, &[1 << 32, 2, 1], Dtype::I8),
    );
    let Some(Call::Launch { works, .. }) = calls.last() else {
        panic!()
    };
    assert_eq!((works[0].data, works[0].rank), (BASE + (3 << 32), 2));
    assert_eq!(
        launches(&calls)
            .iter()
            .map(|launch| launch.3)
            .collect::<Vec<_>>(),
        [3 << 30, 2 << 30]
    );
    let dense = one(
        &cuda,
        &state,
        &sliced("", Action::Zero),
        &tensor(&[1 << 40], &[1], Dtype::U8),
    );
    assert_eq!(
        launches(&dense),
        [(Kernel::Zero(Path::Dense), 32, 256, 1 << 36, 16)]
    );
}

#[test]
fn a_patch_in_use_launches_and_does_nothing_else() {
    let (cuda, state) = recording::cuda(false);
    let index = Pick::tensor(Arc::new(HostTensor::zeros(Dtype::I64, &[1]).unwrap())).unwrap();
    // A launch that reads the patch's own memory must be noted, so that the memory is not freed before its end.
    for (made, reads) in [
        (sliced("", Action::Zero), false),
        (
            sliced("[1]", Action::Add(Operand::Number(Number::Float(0.5)))),
            false,
        ),
        (
            sliced("[:, 1:]", Action::Replace(host(Dtype::F32, &[3]))),
            true,
        ),
        (
            patch(vec![index], Action::Replace(host(Dtype::F32, &[4]))),
            true,
        ),
    ] {
        let at = [4, 4];
        let at = tensor(&at, &[4, 1], Dtype::F32);
        one(&cuda, &state, &made, &at);
        let again = one(&cuda, &state, &made, &at);
        let expected = match again[..] {
            [Call::Launch { .. }] => !reads,
            [Call::Launch { .. }, Call::Record { stream: 42, .. }] => reads,
            _ => false,
        };
        assert!(expected, "{again:?}");
        // The same holds in a capture.
        state.capturing.store(true, Ordering::Relaxed);
        assert!(matches!(
            one(&cuda, &state, &made, &at)[..],
            [Call::Launch { .. }]
        ));
        state.capturing.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_fault_of_a_launch_is_the_patchs() {
    let (cuda, state) = recording::cuda(false);
    let at = tensor(&[4, 4], &[4, 1], Dtype::F32);
    let mut queue = Queue::default();
    for slice in ["[0]", "[1]", ""] {
        queue
            .push(&cuda, &sliced(slice, Action::Zero), &at, None)
            .unwrap();
    }
    state.fault.store(700, Ordering::Relaxed);
    let outcomes = queue.flush(&cuda);
    assert_eq!(outcomes.len(), 3);
    for (_, fault) in outcomes {
        assert_eq!(
            fault.as_deref(),
            Some("CUDA: the driver says no (error 700)")
        );
    }
    assert!(queue.is_empty());
    assert!(queue.flush(&cuda).is_empty());
    // A slice that does not fit the shape gives the same message as on the CPU.
    match queue.push(&cuda, &sliced("[7]", Action::Zero), &at, None) {
        Err(DeviceError::Failed(why)) => {
            assert_eq!(why, "index 7 is out of bounds for dimension 0 with size 4")
        }
        other => panic!("{other:?}"),
    }
    // Values that libtorch refuses are left to it.
    for (action, dtype) in [
        (Action::Add(Operand::Number(Number::Float(0.5))), Dtype::I32),
        (Action::Add(host(Dtype::F32, &[4])), Dtype::I32),
        (Action::Replace(host(Dtype::C64, &[4])), Dtype::F32),
        (Action::Add(host(Dtype::F8E5m2, &[4])), Dtype::F8E5m2),
        (Action::Replace(host(Dtype::F32, &[3])), Dtype::F32),
        (Action::Add(host(Dtype::F32, &[1, 4, 4])), Dtype::F32),
    ] {
        let at = tensor(&[4, 4], &[4, 1], dtype);
        assert_eq!(
            queue.push(&cuda, &sliced("", action), &at, None),
            Ok(Planned::Elsewhere)
        );
    }
}

#[test]
fn the_ptx_is_for_what_the_status_asks() {
    use super::device::{OLDEST_CARD, OLDEST_DRIVER, image};
    // PTX ISA 7.0 came with CUDA 11.0.
    let image = image().unwrap().into_string().unwrap();
    assert!(image.contains("\n.version 7.0\n.target sm_75\n"));
    assert_eq!((OLDEST_DRIVER, OLDEST_CARD), (11000, (7, 5)));
}

#[test]
fn the_status_says_what_is_wrong() {
    let open = |version, cards: Vec<super::driver::Facts>| {
        Cuda::new(Box::new(Recording {
            state: Arc::default(),
            version,
            cards,
        }))
    };
    assert!(
        open(10020, vec![recording::card()])
            .unwrap_err()
            .contains("CUDA 10.2: 11.0 (R450) or newer")
    );
    assert!(open(12040, vec![]).unwrap_err().contains("MIG"));
    let old = super::driver::Facts {
        name: "Old card".into(),
        capability: (7, 0),
        processors: 80,
        pools: true,
    };
    let cuda = open(12040, vec![old, recording::card()]).unwrap();
    assert_eq!(
        status::describe(&cuda),
        [
            "driver for CUDA 12.4",
            "device 0: not usable: Old card is of compute capability 7.0: the kernels need 7.5 or newer",
            "device 1: Recording card, compute capability 9.0: usable",
        ]
    );
    let at = tensor(&[4], &[1], Dtype::F32);
    let mut queue = Queue::default();
    assert!(matches!(
        queue.push(&cuda, &sliced("", Action::Zero), &at, None),
        Err(DeviceError::Unusable(_))
    ));
    // On every machine the status says something, and the call does not crash.
    assert!(!super::status().is_empty());
}
