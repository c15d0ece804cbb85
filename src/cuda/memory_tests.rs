//! What a patch has in device memory: when it comes there, what captures and replays see of it, when it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bench::sliced;
use super::launch_tests::{host, one, tensor};
use super::recording::{self, Call};
use super::{Queue, Tensor, Why, resident, status};
use graphpatch_core::patch::action::{Action, NewPatch, Operand};
use graphpatch_core::patch::{Number, Patch};
use graphpatch_core::tensor::Dtype;

#[test]
fn the_module_is_loaded_once_per_device_and_never_in_a_capture() {
    let (cuda, state) = recording::cuda(false);
    let zero = sliced("", Action::Zero);
    let at = tensor(&[4], &[1], Dtype::F32);
    state.capturing.store(true, Ordering::Relaxed);
    let mut queue = Queue::default();
    match queue.push(&cuda, &zero, &at, None) {
        Err(Why::Failed(why)) => assert!(why.contains("during a capture"), "{why}"),
        other => panic!("{other:?}"),
    }
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    status::prepare_on(&cuda, 0, std::slice::from_ref(&value)).unwrap();
    assert_eq!(
        state.take()[..2],
        [Call::Load { context: 100 }, Call::Alloc(16)]
    );
    // Prepared, both go into the capture; a value that is not there yet does not.
    let calls = one(&cuda, &state, &zero, &at);
    assert!(matches!(calls[..], [Call::Launch { .. }]), "{calls:?}");
    assert!(matches!(
        one(&cuda, &state, &value, &at)[..],
        [Call::Launch { .. }]
    ));
    match queue.push(
        &cuda,
        &sliced("", Action::Replace(host(Dtype::F32, &[4]))),
        &at,
        None,
    ) {
        Err(Why::Failed(why)) => {
            assert!(why.contains("its value is not on CUDA device 0"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    state.capturing.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| cuda.device(1, Some(42)).map(|device| device.number));
        }
    });
    assert_eq!(state.take(), [Call::Load { context: 101 }]);
    assert!(
        state.current.lock().is_empty(),
        "every context that was pushed is popped"
    );
}

#[test]
fn memory_of_a_patch_goes_with_it_unless_a_graph_has_it() {
    let (cuda, state) = recording::cuda(false);
    let at = tensor(&[4], &[1], Dtype::F32);
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    let calls = one(&cuda, &state, &value, &at);
    let Some(Call::Upload { address, bytes: 16 }) = calls.get(2) else {
        panic!("{calls:?}")
    };
    drop(value);
    assert_eq!(state.take(), [Call::Free(*address)]);
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    one(&cuda, &state, &value, &at);
    state.capturing.store(true, Ordering::Relaxed);
    one(&cuda, &state, &value, &at);
    drop(value);
    assert_eq!(state.take(), [], "a replay still reads it");
}

fn live(action: Action) -> Arc<Patch> {
    let new = NewPatch {
        action,
        live: true,
        ..NewPatch::zero("x".parse().unwrap())
    };
    Arc::new(Patch::new(3, new))
}

/// The kernels run: a captured launch is one whose arguments stay as they were.
#[test]
fn a_replay_sees_the_switch_and_the_number_of_a_live_patch() {
    let (cuda, state) = recording::cuda(true);
    let memory = state.emulator.lock().as_mut().unwrap().alloc(16);
    let at = Tensor {
        address: memory,
        ..tensor(&[4], &[1], Dtype::F32)
    };
    let added = live(Action::Add(Operand::Number(Number::Float(0.5))));
    let mut queue = Queue::default();
    let replay = |bytes: [f32; 4]| {
        let mut queue = Queue::default();
        let mut guard = state.emulator.lock();
        guard
            .as_mut()
            .unwrap()
            .write(memory, &bytes.map(f32::to_ne_bytes).concat());
        drop(guard);
        queue.push(&cuda, &added, &at, None).unwrap();
        queue.flush(&cuda);
        let mut guard = state.emulator.lock();
        guard
            .as_mut()
            .unwrap()
            .read(memory, 16)
            .chunks(4)
            .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(replay([1.0; 4]), [1.5; 4]);
    let own = resident(&added).unwrap();
    own.change_number(Number::Int(3)).unwrap();
    assert_eq!(replay([1.0; 4]), [4.0; 4]);
    own.switch(false).unwrap();
    assert_eq!(replay([1.0; 4]), [1.0; 4]);
    own.switch(true).unwrap();
    assert_eq!(replay([1.0; 4]), [4.0; 4]);
    match own.change_number(Number::Complex(0.0, 1.0)) {
        Err(Why::Failed(why)) => assert!(why.contains("float32"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(replay([2.0; 4]), [5.0; 4]);
    assert!(queue.flush(&cuda).is_empty());
    queue.push(&cuda, &added, &at, None).unwrap();
    let Some(Call::Launch { works, .. }) = ({
        queue.flush(&cuda);
        state.take().pop()
    }) else {
        panic!()
    };
    assert_ne!(works[0].live, 0);
}
