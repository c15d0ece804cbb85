//! The device memory of a patch: when it is uploaded, what captures and replays see of it, and when it is freed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bench::sliced;
use super::launch_tests::{host, one, tensor};
use super::recording::{self, Call};
use super::{DeviceError, Queue, Tensor, resident, status};
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
        Err(DeviceError::Failed(why)) => assert!(why.contains("during a capture"), "{why}"),
        other => panic!("{other:?}"),
    }
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    status::prepare_on(&cuda, 0, std::slice::from_ref(&value)).unwrap();
    assert_eq!(
        state.take()[..2],
        [Call::Load { context: 100 }, Call::Alloc(16)]
    );
    // After `prepare`, both patches are captured; a value that is not uploaded yet is not.
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
        Err(DeviceError::Failed(why)) => {
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
    assert!(matches!(
        calls.last(),
        Some(Call::Record {
            stream: 42,
            event: 1
        })
    ));
    drop(value);
    assert_eq!(
        state.take(),
        [
            Call::Wait {
                stream: 7,
                event: 1
            },
            Call::Free(*address)
        ]
    );
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    one(&cuda, &state, &value, &at);
    state.capturing.store(true, Ordering::Relaxed);
    one(&cuda, &state, &value, &at);
    drop(value);
    assert_eq!(state.take(), [], "a replay still reads it");
}

/// A patch may be dropped while its last launches still run. The host does not wait for them; our own stream does.
#[test]
fn memory_is_given_back_behind_the_last_launch_of_every_stream() {
    let (cuda, state) = recording::cuda(false);
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    for stream in [42, 43, 42] {
        let at = Tensor {
            stream,
            ..tensor(&[4], &[1], Dtype::F32)
        };
        one(&cuda, &state, &value, &at);
    }
    drop(value);
    let calls = state.take();
    assert_eq!(
        calls[..2],
        [1, 2].map(|event| Call::Wait { stream: 7, event })
    );
    assert!(matches!(calls[2..], [Call::Free(_)]), "{calls:?}");
    assert_eq!(state.live_events.load(Ordering::Relaxed), 0);
    // A patch with a number has nothing in device memory, so nothing has to be waited for.
    let number = sliced("", Action::Add(Operand::Number(Number::Int(1))));
    let calls = one(&cuda, &state, &number, &tensor(&[4], &[1], Dtype::F32));
    assert!(matches!(calls[..], [Call::Launch { .. }]), "{calls:?}");
}

#[test]
fn a_driver_without_memory_pools_waits_by_itself() {
    let old = super::driver::Facts {
        pools: false,
        ..recording::card()
    };
    let (cuda, state) = recording::cuda_on(old, false);
    let value = sliced("", Action::Replace(host(Dtype::F32, &[4])));
    let calls = one(&cuda, &state, &value, &tensor(&[4], &[1], Dtype::F32));
    assert!(
        matches!(calls.last(), Some(Call::Launch { .. })),
        "{calls:?}"
    );
    drop(value);
    assert!(matches!(state.take()[..], [Call::Free(_)]));
}

/// A function of the primary context cannot be launched in a stream of another one.
#[test]
fn streams_of_other_contexts_are_left_to_libtorch() {
    let (cuda, state) = recording::cuda(false);
    let zero = sliced("", Action::Zero);
    state.elsewhere.lock().extend([(50, 999), (51, 100)]);
    let at = |stream| Tensor {
        stream,
        ..tensor(&[4], &[1], Dtype::F32)
    };
    match Queue::default().push(&cuda, &zero, &at(50), None) {
        Err(DeviceError::Unusable(why)) => assert!(why.contains("green context"), "{why}"),
        other => panic!("{other:?}"),
    }
    // These two work: a stream of the primary context, and the default stream before there is a context.
    one(&cuda, &state, &zero, &at(51));
    one(&cuda, &state, &zero, &at(0));
    // A context of device 0 is not a context of device 1.
    let other = Tensor {
        device: 1,
        ..at(51)
    };
    assert!(matches!(
        Queue::default().push(&cuda, &zero, &other, None),
        Err(DeviceError::Unusable(_))
    ));
}

fn live(action: Action) -> Arc<Patch> {
    let new = NewPatch {
        action,
        live: true,
        ..NewPatch::zero("x".parse().unwrap())
    };
    Arc::new(Patch::new(3, new))
}

/// The kernels run here. A replay of a captured launch repeats the launch with unchanged arguments.
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
        Err(DeviceError::Failed(why)) => assert!(why.contains("float32"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(replay([2.0; 4]), [5.0; 4]);
    assert!(queue.flush(&cuda).is_empty());
    queue.push(&cuda, &added, &at, None).unwrap();
    queue.flush(&cuda);
    let calls = state.take();
    let [.., Call::Launch { works, .. }, Call::Record { .. }] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_ne!(works[0].live, 0);
}
