//! Flat runs on fake streams of operations, without any libtorch.

use std::sync::Arc;

use super::flat::{Flat, LIMIT, Next};
use super::run_tests::ATTACH;
use super::{News, Root, Scope, Session, ValueKind, ops};
use crate::record::{Element, Tag};

fn tensor(identity: usize) -> Element<'static> {
    Element {
        identity,
        sizes: &[2],
        dtype: "float32",
        device: "cpu",
        layout: "strided",
        ..Element::of(Tag::Tensor)
    }
}

fn root(parameters: &[&str]) -> Arc<Root> {
    let scope = Arc::new(Scope::new("", "", "", Vec::new()));
    let parameters = parameters.iter().map(|path| path.to_string()).collect();
    Arc::new(Root::new(scope, "operations", parameters))
}

/// Whether the operation meets a patch.
fn op(run: &mut Flat, id: u32) -> bool {
    let Some((token, wants)) = run.value_begin(ValueKind::Op(id)) else {
        return false;
    };
    run.run().value(&token, &[tensor(0)]);
    wants.targets
}

fn tree(session: &Session) -> String {
    session.graphs()[0]
        .tree(&graphpatch_core::path::NodePath::root())
        .unwrap()
}

/// Calls `linear` and `add` twice each; the calls of `linear` are in the scope `fc`, whose parameter is tensor 7. Returns which
/// of the four operations met the session's patch.
fn forwards(session: &Arc<Session>) -> Vec<bool> {
    let (linear, add) = (ops::define("aten::linear"), ops::define("aten::add"));
    let fc = Arc::new(Scope::new("fc", "fc", "Linear", Vec::new()));
    let (mut run, _) = Flat::begin(root(&[])).unwrap();
    run.set_root(root(&["fc.weight"]), [7].into_iter());
    let mut met = Vec::new();
    for _ in 0..2 {
        assert_eq!(run.advance().0, Next::GoOn);
        run.enter(fc.clone());
        run.run().operand(0, 7, Some(&tensor(7)));
        met.push(op(&mut run, linear));
        run.leave();
        met.push(op(&mut run, add));
    }
    if session.is_recording() {
        let expected = "<root>: Graph(3)\n├─fc: Graph(3)\n│ ├─weight: Tensor(2)\n│ ├─linear: Tensor(2)\n│ └─linear_1: \
                        Tensor(2)\n├─add: Tensor(2)\n└─add_1: Tensor(2)";
        assert_eq!(tree(session).trim_end(), expected, "while it is under way");
        assert_eq!(session.runs(), 1);
    }
    run.end();
    assert_eq!(session.runs(), 1);
    met
}

#[test]
fn a_scope_is_entered_again_under_the_same_names_recorded_or_not() {
    let _alone = ATTACH.lock();
    for (path, index) in [
        ("fc.linear", 0),
        ("fc.linear_1", 2),
        ("add", 1),
        ("add_1", 3),
    ] {
        for recording in [false, true] {
            let session = Session::open();
            session.set_recording(recording);
            session
                .add_patch(format!("{path}=zero").parse().unwrap())
                .unwrap();
            session.make_current().unwrap();
            let expected: Vec<bool> = (0..4).map(|at| at == index).collect();
            assert_eq!(forwards(&session), expected, "{path} {recording}");
            session.detach();
        }
    }
}

#[test]
fn a_run_without_end_is_recorded_up_to_a_limit_and_patched_on() {
    let _alone = ATTACH.lock();
    let add = ops::define("aten::add");
    let far = LIMIT + 5;
    for (patch, patched) in [(None, false), (Some(format!("add_{far}=zero")), true)] {
        let session = Session::open();
        session.set_recording(true);
        if let Some(patch) = patch {
            session.add_patch(patch.parse().unwrap()).unwrap();
        }
        session.make_current().unwrap();
        let (mut run, _) = Flat::begin(root(&[])).unwrap();
        for _ in 0..LIMIT {
            assert_eq!(run.advance().0, Next::GoOn);
            assert!(!op(&mut run, add));
        }
        let (next, news) = run.advance();
        assert_eq!(news, Some(News::Last), "the whole graph is reported");
        assert_eq!(matches!(next, Next::Stopped(_)), patched, "{next:?}");
        assert_eq!(next == Next::Over, !patched);
        assert!(session.notes()[0].contains("--run-at"));
        assert_eq!(session.graphs()[0].root.children.len(), LIMIT);
        if patched {
            let met: Vec<usize> = (LIMIT..far + 10).filter(|_| op(&mut run, add)).collect();
            assert_eq!(met.len(), 1);
            assert!(run.run().frames[0].past.len() == 1, "counted no more");
        }
        run.end();
        session.detach();
    }
}

#[test]
fn a_forked_childs_run_begins_afresh() {
    let _alone = ATTACH.lock();
    let session = Session::open();
    session.set_recording(true);
    session.make_current().unwrap();
    let (mut run, _) = Flat::begin(root(&[])).unwrap();
    op(&mut run, ops::define("aten::add"));
    session.reset_after_fork();
    assert!(session.graphs().is_empty() && session.runs() == 0);
    run.end();
    assert!(session.graphs().is_empty() && session.runs() == 0);
    session.detach();
}
