//! The state of a thread, without any libtorch: what nests, what is refused, and what code of the user's may do meanwhile.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::run_tests::ATTACH;
use super::thread::{self, Edge, VIEW};
use super::{Root, Run, Scope, Session, Token, ValueKind, ValueWants, Wants, family_bit, ops};
use crate::record::{Element, Tag};
use graphpatch_core::path::NodePath;

/// Remembers what was last asked of it on this thread.
struct Fake;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static SUSPENDED: Cell<u32> = const { Cell::new(0) };
}

impl Edge for Fake {
    fn arm(&self, on: bool) {
        ARMED.set(on);
    }

    fn suspend(&self) -> u32 {
        SUSPENDED.set(SUSPENDED.get() + 1);
        ARMED.replace(false).into()
    }

    fn resume(&self, before: u32) {
        SUSPENDED.set(SUSPENDED.get() - 1);
        ARMED.set(before == 1);
    }

    fn node(&self) -> usize {
        0
    }
}

fn tensor() -> Element<'static> {
    Element {
        sizes: &[2],
        dtype: "float32",
        device: "cpu",
        layout: "strided",
        ..Element::of(Tag::Tensor)
    }
}

fn root(name: &str) -> Arc<Root> {
    let scope = Arc::new(Scope::new("", "", name, vec!["x".into()]));
    Arc::new(Root::new(scope, name, Vec::new()))
}

fn scope(path: &str) -> Arc<Scope> {
    Arc::new(Scope::new(path, path, "Module", vec!["x".into()]))
}

fn begin(name: &str) -> (Token, ValueWants) {
    thread::value_begin(ValueKind::Op(ops::define(&format!("aten::{name}")))).unwrap()
}

fn end(token: &Token) {
    thread::with_run(|run| run.value(token, &[tensor()])).unwrap();
}

fn op(name: &str) {
    let (token, wants) = begin(name);
    if wants.args {
        thread::value_args(&token, &[tensor()], Vec::new());
    }
    end(&token);
}

fn recording() -> Arc<Session> {
    thread::set_edge(&Fake);
    let session = Session::open();
    session.set_recording(true);
    session
}

fn tree(session: &Session, root: &str) -> String {
    let graphs = session.graphs();
    let graph = graphs.iter().find(|graph| graph.name == root).unwrap();
    graph.tree(&NodePath::root()).unwrap()
}

#[test]
fn a_value_keeps_its_name_whatever_is_called_meanwhile() {
    let session = recording();
    thread::open_run(Some(&session), &root("outer"))
        .unwrap()
        .unwrap();
    let (first, _) = begin("outer_op");
    thread::enter(scope("inner")).unwrap();
    let (second, _) = begin("inner_op");
    // Another model, called by a finalizer, say.
    thread::open_run(Some(&session), &root("other"))
        .unwrap()
        .unwrap();
    assert_eq!(SUSPENDED.get(), 1);
    op("relu");
    end(&first); // which is none of this run's
    thread::end_run().unwrap();
    assert_eq!(SUSPENDED.get(), 0);
    end(&second);
    let (output, _) = thread::value_begin(ValueKind::Output).unwrap();
    end(&output);
    thread::leave();
    end(&first);
    thread::end_run().unwrap();
    let expected = "<root>: Graph(2)\n├─inner: Graph(2)\n│ ├─inner_op: Tensor(2)\n│ └─output: Tensor(2)\n└─outer_op: Tensor(2)";
    assert_eq!(tree(&session, "outer").trim_end(), expected);
    assert_eq!(
        tree(&session, "other").trim_end(),
        "<root>: Graph(1)\n└─relu: Tensor(2)"
    );
    assert!(!ARMED.get() && thread::value_begin(ValueKind::Output).is_none());
}

#[test]
fn who_is_asked_for_the_source_may_run_models() {
    let session = recording();
    let asked = Arc::new(AtomicU32::new(0));
    let (other, counter) = (recording(), asked.clone());
    session.set_source(Some(Box::new(move || {
        if counter.fetch_add(1, Ordering::Relaxed) < 6 {
            thread::open_run(Some(&other), &root("other"))
                .unwrap()
                .unwrap();
            op("add");
            thread::end_run().unwrap();
            // A module of the very run that is being described is called, too.
            thread::enter(scope("late")).unwrap();
            op("add");
            thread::leave();
        }
        Vec::new()
    })));
    thread::open_run(Some(&session), &root("outer"))
        .unwrap()
        .unwrap();
    op("relu");
    thread::enter(scope("inner")).unwrap();
    op("relu");
    thread::leave();
    thread::end_run().unwrap();
    assert!(asked.load(Ordering::Relaxed) > 6);
    let text = tree(&session, "outer");
    for line in ["─relu: Tensor(2)", "─inner: Graph(", "─late: Graph("] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_function_of_the_users_leaves_nothing_behind() {
    let session = recording();
    thread::open_run(Some(&session), &root("outer"))
        .unwrap()
        .unwrap();
    op("relu");
    thread::begin_function();
    assert!(
        thread::value_begin(ValueKind::Output).is_none(),
        "its values are its own"
    );
    thread::open_run(Some(&session), &root("first"))
        .unwrap()
        .unwrap();
    thread::open_run(Some(&session), &root("second"))
        .unwrap()
        .unwrap();
    thread::enter(scope("left_open")).unwrap();
    thread::end_function();
    op("relu");
    thread::end_run().unwrap();
    assert_eq!(
        tree(&session, "outer").trim_end(),
        "<root>: Graph(2)\n├─relu: Tensor(2)\n└─relu_1: Tensor(2)"
    );
    assert_eq!((session.runs(), SUSPENDED.get()), (3, 0));
}

#[test]
fn scopes_that_an_exception_left_open_are_left() {
    let session = recording();
    session.set_recording(false);
    session
        .add_patch("a.b.output=zero".parse().unwrap())
        .unwrap();
    thread::open_run(Some(&session), &root("outer"))
        .unwrap()
        .unwrap();
    let depth = thread::call_next(&scope("unused")).unwrap();
    let wants = thread::enter(scope("a")).unwrap();
    assert!(!wants.is_cold());
    let cold = thread::enter(scope("c")).unwrap();
    assert!(cold.is_cold() && cold.has(Wants::IGNORED));
    assert_eq!(thread::enter(scope("d")), Some(Wants::NOTHING));
    thread::unwind(depth).unwrap();
    thread::unwind(0).unwrap();
    thread::enter(scope("a")).unwrap();
    thread::enter(scope("b")).unwrap();
    thread::end_run().unwrap();
    thread::leave();
    assert!(thread::enter(scope("a")).is_none(), "no run is open");
    thread::end_run().unwrap();
}

#[test]
fn a_second_run_of_no_named_session_is_refused() {
    let _alone = ATTACH.lock();
    let session = recording();
    session.make_current().unwrap();
    thread::open_run(None, &root("outer")).unwrap().unwrap();
    assert!(thread::open_run(None, &root("outer")).is_err());
    thread::end_run().unwrap();
    session.detach();
}

/// A session with one patch, at a node that no run of these tests reaches.
fn patching(patch: &str) -> Arc<Session> {
    thread::set_edge(&Fake);
    let session = Session::open();
    session.add_patch(patch.parse().unwrap()).unwrap();
    session
}

#[test]
fn what_the_adapter_counts_without_a_call_counts() {
    let session = patching("inner.relu=zero");
    thread::open_run(Some(&session), &root("outer")).unwrap();
    let cold = || VIEW.with(|shown| shown.cold.get());
    assert_eq!(cold(), 0);
    assert!(thread::enter(scope("cold")).unwrap().is_cold());
    assert_eq!(cold(), 1);
    // The markers of a TorchScript graph count like this: two scopes begin, and one ends.
    VIEW.with(|shown| shown.cold.set(shown.cold.get() + 2 - 1));
    let called = scope("called");
    assert_eq!(
        thread::call_next(&called).unwrap(),
        3,
        "the root, cold, and one below"
    );
    thread::enter(scope("by_a_host")).unwrap();
    assert_eq!(cold(), 3);
    // Another run comes between, and the scopes are still open behind it.
    thread::open_run(Some(&session), &root("other")).unwrap();
    assert_eq!(cold(), 0);
    thread::end_run().unwrap();
    assert_eq!(cold(), 3);
    thread::unwind(1).unwrap();
    assert_eq!(cold(), 0);
    let wants = thread::enter(scope("inner")).unwrap();
    assert!(wants.has(Wants::OPERATIONS) && ARMED.get());
    thread::end_run().unwrap();
    assert_eq!((cold(), ARMED.get()), (0, false));
}

#[test]
fn operations_of_other_families_need_no_call() {
    let session = patching("relu_3=zero");
    thread::open_run(Some(&session), &root("families")).unwrap();
    let shown = || VIEW.with(|shown| shown.families.get());
    let bit = |name: &str| {
        let id = ops::define(&format!("aten::{name}"));
        family_bit(ops::get(id).unwrap().family)
    };
    assert_eq!(shown(), bit("relu"));
    // It does no harm to report an operation that was not asked for.
    let other = (0..)
        .map(|i| format!("other{i}x"))
        .find(|name| bit(name) != bit("relu"));
    let other = ops::define(&format!("aten::{}", other.unwrap()));
    assert!(thread::value_begin(ValueKind::Op(other)).is_none());
    thread::end_run().unwrap();
    let session = recording();
    thread::open_run(Some(&session), &root("all")).unwrap();
    assert_eq!(shown(), u64::MAX);
    thread::end_run().unwrap();
    assert_eq!(shown() & bit("relu"), 0, "nothing is left of a run");
}

/// The adapter enters a scope of which nothing is wanted without a call, and reports its end.
#[test]
fn scopes_of_other_families_need_no_call() {
    let session = patching("inner_1.relu=zero");
    thread::open_run(Some(&session), &root("families of scopes")).unwrap();
    let shown = || VIEW.with(|shown| (shown.cold.get(), shown.scopes.get()));
    let bit = |name: &str| family_bit(scope(name).family());
    assert_eq!(shown(), (0, bit("inner")));
    let other = (0..).map(|i| format!("other{i}x"));
    let other = other.into_iter().find(|name| bit(name) != bit("inner"));
    let enter_other = || {
        VIEW.with(|shown| {
            shown.cold.set(1);
            shown.wants.set(0);
            shown.scopes.set(0);
        });
    };
    enter_other();
    let nothing = Some(String::new());
    assert_eq!(
        thread::patched().unwrap(),
        nothing,
        "nothing is patched in it"
    );
    assert!(thread::snapshot().unwrap().is_some_and(|here| {
        let (resumed, wants) = Run::resume(&here, false).unwrap();
        wants.is_cold() && resumed.depth() == 2
    }));
    enter_other();
    assert_eq!(
        thread::enter(scope("inner")),
        Some(Wants::NOTHING),
        "a scope below"
    );
    assert_eq!(shown(), (2, 0));
    thread::leave();
    thread::leave();
    assert_eq!(shown(), (0, bit("inner")));
    // One that the adapter reports all the same is treated alike.
    assert!(
        thread::enter(scope(&other.unwrap()))
            .unwrap()
            .has(Wants::IGNORED)
    );
    assert_eq!(shown(), (1, 0));
    thread::leave();
    assert!(
        thread::enter(scope("inner")).unwrap().is_cold(),
        "the first call of two"
    );
    thread::leave();
    assert!(!thread::enter(scope("inner")).unwrap().is_cold());
    thread::end_run().unwrap();
    let session = recording();
    thread::open_run(Some(&session), &root("all scopes")).unwrap();
    assert_eq!(shown(), (0, u64::MAX));
    thread::end_run().unwrap();
    assert_eq!(shown(), (0, 0), "nothing is left of a run");
}

#[test]
fn a_path_is_checked_against_whole_runs_alone() {
    let session = recording();
    thread::open_run(Some(&session), &root("first")).unwrap();
    op("relu");
    // A part of the run is computed apart, as a checkpoint is, and ends before the run does.
    let here = thread::snapshot().unwrap().unwrap();
    thread::resume(&here, true).unwrap();
    op("again");
    thread::end_run().unwrap();
    assert!(session.add_patch("later=zero".parse().unwrap()).is_ok());
    op("later");
    thread::end_run().unwrap();
    assert!(session.add_patch("later=zero".parse().unwrap()).is_ok());
    assert!(session.add_patch("never=zero".parse().unwrap()).is_err());
}
