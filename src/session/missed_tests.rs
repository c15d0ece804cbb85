//! Which patches count as missed, also after they have been taken away.

use std::sync::Arc;

use super::run_tests::{model, with_session};
use super::{Run, Session};
use graphpatch_apply::View;
use graphpatch_core::patch::Number;
use graphpatch_core::patch::action::Operand;
use graphpatch_core::tensor::Dtype;

fn add(session: &Arc<Session>, patch: &str) -> u64 {
    session.add_patch(patch.parse().unwrap()).unwrap()
}

/// A run that comes by the first patch of its plan, as the adapter tells it.
fn come_by(run: Run) {
    let mut run = run;
    let mut memory = [1.0f32; 4];
    let view = View::over(&mut memory, &[4], &[1], Dtype::F32).unwrap();
    run.apply(0, &view);
    run.end();
    assert_eq!(memory, [0.0; 4]);
}

fn begin() -> Run {
    Run::begin(model().root).unwrap().0
}

#[test]
fn a_patch_that_a_run_reaches_after_its_removal_is_not_missed() {
    with_session(|session| {
        let id = add(session, "add=zero");
        let run = begin();
        session.remove_patch(id).unwrap();
        assert_eq!(session.missed(), ["add=zero"]);
        come_by(run);
        assert!(session.missed().is_empty());
    });
}

#[test]
fn patches_of_the_same_text_are_told_apart() {
    with_session(|session| {
        let first = add(session, "add=zero");
        let run = begin();
        session.remove_patch(first).unwrap();
        let second = add(session, "add=zero");
        session.remove_patch(second).unwrap();
        come_by(run);
        // The first was reached. The second never was.
        assert_eq!(session.missed(), ["add=zero"]);
    });
}

#[test]
fn a_text_is_told_once() {
    with_session(|session| {
        for _ in 0..300 {
            let id = add(session, "add=zero");
            session.remove_patch(id).unwrap();
        }
        add(session, "add=zero");
        let other = add(session, "mul=zero");
        session.remove_patch(other).unwrap();
        assert_eq!(session.missed(), ["add=zero", "mul=zero"]);
    });
}

#[test]
fn a_removed_patch_is_pending_until_the_last_run_that_began_with_it_ends() {
    with_session(|session| {
        let missed = add(session, "add=zero");
        let reached = add(session, "mul=zero");
        assert!(!session.counts_of(missed).unwrap().pending);
        let (first, second) = (begin(), begin());
        for id in [missed, reached] {
            assert!(session.counts_of(id).unwrap().pending);
            session.remove_patch(id).unwrap();
        }
        // It began later, so that it cannot reach them.
        let other = add(session, "relu=zero");
        let later = begin();
        first.end();
        assert!(session.counts_of(missed).unwrap().pending);
        second.plan().unwrap().patches[1].count_match();
        second.end();
        let counts = session.counts_of(missed).unwrap();
        assert!(!counts.pending && counts.matched == 0);
        session.remove_patch(other).unwrap();
        later.end();
        session.counts_of(reached).unwrap_err();
        // Nobody came by it either.
        assert!(!session.counts_of(other).unwrap().pending);
    });
}

#[test]
fn an_earlier_version_of_a_patch_is_pending_too() {
    with_session(|session| {
        let id = add(session, "add=add:1");
        let run = begin();
        session
            .set_value(id, Operand::Number(Number::Float(2.0)))
            .unwrap();
        assert!(session.counts_of(id).unwrap().pending);
        run.end();
        assert!(!session.counts_of(id).unwrap().pending);
    });
}
