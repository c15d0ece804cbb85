//! Names of operations that no patch uses are only counted. What a patch meets must not depend on that.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Root, Run, Scope, Session, ValueKind, ops};

/// What a run does: an operation of one of these schemas is called, or a module of one of these names.
const CALLS: [&str; 9] = [
    "aten::add.Tensor",
    "aten::add.Scalar",
    "aten::sum",
    "aten::mul",
    "add",
    "add.2",
    "add.5",
    "sum.3",
    "mul.0.1",
];

const PATCHES: [&str; 10] = [
    "add",
    "add_1",
    "add_2",
    "add_4",
    "add_9",
    "sum_1",
    "sum_3",
    "mul_0",
    "mul_1_0.y",
    "add_7.y",
];

/// The numbers of the calls whose values a patch meets.
fn met(calls: &[usize], patches: &[&str], record: bool) -> Vec<usize> {
    let session = Session::open();
    session.set_recording(record);
    for path in patches {
        session
            .add_patch(format!("{path}=zero").parse().unwrap())
            .unwrap();
    }
    let scope = Arc::new(Scope::new("", "", "Model", vec![]));
    let root = Arc::new(Root::new(scope, "Model.forward", vec![]));
    let (mut run, _) = Run::begin_for(session, root).unwrap();
    let mut met = Vec::new();
    for (at, call) in calls.iter().map(|call| CALLS[*call]).enumerate() {
        if call.contains("::") {
            let begun = run.value_begin(ValueKind::Op(ops::define(call)));
            if begun.is_some_and(|(_, wants)| wants.targets) {
                met.push(at);
            }
        } else {
            run.enter(Arc::new(Scope::new(call, call, "Inner", vec![])));
            let inner = run.value_begin(ValueKind::Op(ops::define("aten::y")));
            if inner.is_some_and(|(_, wants)| wants.targets) {
                met.push(at);
            }
            run.leave();
        }
    }
    run.end();
    met
}

proptest! {
    /// A recorded run names every value.
    #[test]
    fn a_patch_meets_what_it_meets_in_a_recorded_run(
        calls in prop::collection::vec(0..CALLS.len(), 0..60),
        patches in prop::sample::subsequence(&PATCHES[..], 1..5),
    ) {
        prop_assert_eq!(met(&calls, &patches, false), met(&calls, &patches, true));
    }

    /// Mostly the same operation, as in a loop.
    #[test]
    fn a_loop_is_counted_right(
        calls in prop::collection::vec(prop::sample::select(&[0, 0, 0, 0, 0, 0, 0, 1, 4, 6][..]), 0..60),
        patches in prop::sample::subsequence(&PATCHES[..], 1..5),
    ) {
        prop_assert_eq!(met(&calls, &patches, false), met(&calls, &patches, true));
    }
}

#[test]
fn a_name_far_away_is_met() {
    let calls = [0; 3000];
    assert_eq!(
        met(&calls, &["add_2", "add_2500", "add_99999999"], false),
        [2, 2500]
    );
}
