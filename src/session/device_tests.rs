//! Runs with values on a fake card: verdicts, counts, and what is launched at the end of a node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::run_tests::ATTACH;
use super::{Root, Run, Scope, Session, Verdict};
use graphpatch_core::patch::action::{Action, NewPatch, Operand};
use graphpatch_core::patch::{Number, OnError};
use graphpatch_core::tensor::{Dtype, HostTensor};
use graphpatch_cuda::recording::{self, Call, State};
use graphpatch_cuda::{self as cuda, Tensor};

const TENSOR: Tensor<'_> = Tensor {
    address: 1 << 40,
    sizes: &[4, 4],
    strides: &[4, 1],
    dtype: Dtype::F32,
    device: 0,
    stream: 9,
};

/// A session with patches at `relu`, a run of it, and the fake card behind both.
fn begin(patches: &[&str], on_error: OnError) -> (Arc<Session>, Run, Arc<State>) {
    let (cuda, state) = recording::cuda(false);
    recording::put(cuda);
    let session = Session::open();
    session.make_current().unwrap();
    session.set_on_error(on_error);
    for patch in patches {
        session.add_patch(patch.parse().unwrap()).unwrap();
    }
    let scope = Arc::new(Scope::new("", "", "Model", Vec::new()));
    let root = Arc::new(Root::new(scope, "model", Vec::new()));
    let (run, _) = Run::begin(root).unwrap();
    (session, run, state)
}

fn launches(state: &State) -> usize {
    let calls = state.take();
    calls
        .iter()
        .filter(|call| matches!(call, Call::Launch { .. }))
        .count()
}

fn counts(session: &Session) -> Vec<(u64, u64, u64)> {
    let counts = session.patch_counts();
    counts
        .iter()
        .map(|c| (c.matched, c.applied, c.failed))
        .collect()
}

#[test]
fn patches_of_a_node_wait_for_its_end() {
    let _alone = ATTACH.lock();
    let (session, mut run, state) = begin(
        &["relu[0]=zero", "relu[1]=add:1", "relu[2]=replace:2"],
        OnError::Raise,
    );
    assert_eq!(
        run.apply_on_device(0, &TENSOR, None, true),
        Verdict::Applied
    );
    assert_eq!(
        run.apply_on_device(1, &TENSOR, None, true),
        Verdict::Applied
    );
    assert_eq!((launches(&state), counts(&session)[0]), (0, (0, 0, 0)));
    assert_eq!(
        run.apply_on_device(2, &TENSOR, None, false),
        Verdict::Applied
    );
    assert_eq!(
        (launches(&state), counts(&session)),
        (1, vec![(1, 1, 0); 3])
    );
    assert_eq!(run.flush_device(), Verdict::Applied);
    // Patches that wait are launched before libtorch does its part.
    assert_eq!(
        run.apply_on_device(0, &TENSOR, None, true),
        Verdict::Applied
    );
    let whole = Tensor {
        dtype: Dtype::I32,
        ..TENSOR
    };
    session.add_patch("relu=add:0.5".parse().unwrap()).unwrap();
    assert_eq!(run.apply_on_device(2, &whole, None, true), Verdict::Applied);
    assert_eq!(run.flush_device(), Verdict::Applied);
    assert_eq!(
        launches(&state),
        1,
        "two works on one address are one batch"
    );
    // A patch on another stream does not wait for patches on this one.
    assert_eq!(
        run.apply_on_device(0, &TENSOR, None, true),
        Verdict::Applied
    );
    let other = Tensor {
        stream: 10,
        ..TENSOR
    };
    assert_eq!(run.apply_on_device(1, &other, None, true), Verdict::Applied);
    assert_eq!(launches(&state), 1);
    run.flush_device();
    run.end();
    session.detach();
}

#[test]
fn a_failing_launch_fails_its_patches_by_the_policy() {
    let _alone = ATTACH.lock();
    for (on_error, verdict) in [
        (OnError::Raise, Verdict::Raise),
        (OnError::Skip, Verdict::Skipped),
    ] {
        let (session, mut run, state) = begin(&["relu[0]=zero", "relu[9]=zero"], on_error);
        state.fault.store(719, Ordering::Relaxed);
        assert_eq!(run.apply_on_device(0, &TENSOR, None, false), verdict);
        if verdict == Verdict::Raise {
            assert!(
                run.failure().contains("relu[0]=zero") && run.failure().contains("error 719"),
                "{}",
                run.failure()
            );
        }
        state.fault.store(0, Ordering::Relaxed);
        // A waiting patch is launched before the failure of a later one is reported.
        assert_eq!(
            run.apply_on_device(0, &TENSOR, None, true),
            Verdict::Applied
        );
        assert_eq!(run.apply_on_device(1, &TENSOR, None, true), verdict);
        assert_eq!(
            (launches(&state), counts(&session)),
            (1, vec![(2, 1, 1), (1, 0, 1)])
        );
        run.end();
        session.detach();
    }
}

#[test]
fn a_live_patch_is_told_by_the_session() {
    let _alone = ATTACH.lock();
    let (session, run, state) = begin(&["relu=zero"], OnError::Raise);
    run.end();
    let mut live =
        graphpatch_core::patch::action::NewPatch::from_spec("relu=add:1".parse().unwrap()).unwrap();
    live.live = true;
    let id = session.add(live).unwrap();
    let (_, mut run, _) = {
        let scope = Arc::new(Scope::new("", "", "Model", Vec::new()));
        let root = Arc::new(Root::new(scope, "model", Vec::new()));
        let (run, interest) = Run::begin(root).unwrap();
        (interest, run, ())
    };
    assert_eq!(
        run.apply_on_device(1, &TENSOR, None, false),
        Verdict::Applied
    );
    run.end();
    let uploads = |state: &State| {
        let calls = state.take();
        let size = |call: &Call| match call {
            Call::Upload { bytes, .. } => Some(*bytes),
            _ => None,
        };
        calls.iter().filter_map(size).collect::<Vec<_>>()
    };
    assert_eq!(uploads(&state), [56], "its switch and number");
    session
        .set_value(id, Operand::Number(Number::Int(2)))
        .unwrap();
    // First the spare state is written, then the version, which makes that state the current one.
    assert_eq!(uploads(&state), [24, 4]);
    session.enable_patch(id, false).unwrap();
    assert_eq!(uploads(&state), [24, 4]);
    session.remove_patch(id).unwrap();
    assert_eq!(uploads(&state), [24, 4], "a graph that has it is told, too");
    assert!(cuda::cuda().is_ok());
    session.detach();
}

#[test]
fn a_new_value_reaches_the_device() {
    let _alone = ATTACH.lock();
    let (session, run, state) = begin(&["relu=zero"], OnError::Raise);
    run.end();
    let value = |byte: u8| {
        let mut tensor = HostTensor::zeros(Dtype::F32, &[4]).unwrap();
        tensor.bytes_mut().fill(byte);
        Operand::Host(Arc::new(tensor))
    };
    for live in [false, true] {
        let mut new = NewPatch::from_spec("relu=zero".parse().unwrap()).unwrap();
        new.action = Action::Replace(value(1));
        new.live = live;
        let id = session.add(new).unwrap();
        let calls = |state: &State| {
            let scope = Arc::new(Scope::new("", "", "Model", Vec::new()));
            let root = Arc::new(Root::new(scope, "model", Vec::new()));
            let (mut run, _) = Run::begin(root).unwrap();
            assert_eq!(
                run.apply_on_device(1, &TENSOR, None, false),
                Verdict::Applied
            );
            run.end();
            state.take()
        };
        let uploaded = |calls: &[Call]| {
            calls
                .iter()
                .any(|call| matches!(call, Call::Upload { bytes: 16, .. }))
        };
        assert!(uploaded(&calls(&state)));
        session.set_value(id, value(2)).unwrap();
        // A live patch's memory is written at once, in the old place; another patch uploads anew.
        assert_eq!(uploaded(&state.take()), live);
        assert_eq!(uploaded(&calls(&state)), !live);
        assert_eq!(
            session
                .set_value(id, Operand::Number(Number::Int(1)))
                .is_err(),
            live
        );
        session.remove_patch(id).unwrap();
        state.take();
    }
    session.detach();
}

/// Under `graphpatch run` nobody can call `gp_cuda_prepare`, and the first run that meets a card may be captured.
#[test]
fn a_run_finds_the_card_ready_although_its_first_use_is_captured() {
    let _alone = ATTACH.lock();
    let (cuda, state) = recording::cuda(false);
    let session = Session::open();
    let mut patch = NewPatch::from_spec("relu=zero".parse().unwrap()).unwrap();
    patch.action = Action::Replace(Operand::Host(Arc::new(
        HostTensor::zeros(Dtype::F32, &[4]).unwrap(),
    )));
    session.add(patch).unwrap();
    // From here on the process uses a card.
    recording::put(cuda);
    session.make_current().unwrap();
    state.capturing.store(true, Ordering::Relaxed);
    let scope = Arc::new(Scope::new("", "", "Model", Vec::new()));
    let root = Arc::new(Root::new(scope, "model", Vec::new()));
    let (mut run, _) = Run::begin(root).unwrap();
    let before = state.take();
    assert!(
        matches!(
            before[..],
            [
                Call::Load { .. },
                Call::Alloc(16),
                Call::Upload { bytes: 16, .. }
            ]
        ),
        "{before:?}"
    );
    assert_eq!(
        run.apply_on_device(0, &TENSOR, None, false),
        Verdict::Applied
    );
    assert_eq!(launches(&state), 1);
    run.end();
    session.detach();
}
