//! Runs on fake streams of operations: names, parameters, patches and what is wanted, without any libtorch.

use std::sync::Arc;

use graphpatch_locks::Mutex;

use super::{Operand, Root, Run, Scope, Session, ValueKind, Verdict, Wants, ops};
use crate::record::{Element, Tag};
use graphpatch_apply::{Scalar, View};
use graphpatch_core::patch::OnError;
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::Dtype;

/// Only one session can be attached at a time.
pub(super) static ATTACH: Mutex<()> = Mutex::new(());

/// TupleOutputModule: a root with one called module, and that module's parameters as tensors 100 and 101.
pub(super) struct Model {
    pub(super) root: Arc<Root>,
    linear: Arc<Scope>,
}

pub(super) fn model() -> Model {
    let scope = Arc::new(Scope::new("", "", "Tuple", vec!["x".into()]));
    let parameters = vec!["linear.weight".into(), "linear.bias".into()];
    Model {
        root: Arc::new(Root::new(scope, "Tuple.forward", parameters)),
        linear: Arc::new(Scope::new(
            "linear",
            "linear",
            "Linear",
            vec!["input".into()],
        )),
    }
}

pub(super) fn tensor(identity: usize, sizes: &'static [i64]) -> Element<'static> {
    Element {
        identity,
        sizes,
        dtype: "float32",
        device: "cpu",
        layout: "strided",
        ..Element::of(Tag::Tensor)
    }
}

/// Which values wanted targets, in the order of the run.
pub(super) type Targeted = Vec<&'static str>;

pub(super) fn value(
    run: &mut Run,
    kind: ValueKind,
    what: &'static str,
    element: Element<'_>,
    out: &mut Targeted,
) {
    let Some((token, wants)) = run.value_begin(kind) else {
        return;
    };
    if wants.targets {
        out.push(what);
    }
    if wants.elements {
        run.value(&token, &[element]);
    }
}

fn call_linear(run: &mut Run, model: &Model, all: &mut Vec<Wants>, out: &mut Targeted) {
    let linear = ops::define("aten::linear");
    let wants = run.enter(model.linear.clone()).wants;
    all.push(wants);
    if !wants.is_cold() {
        value(run, ValueKind::Input(0), "input", tensor(1, &[3, 2]), out);
        if wants.has(Wants::OPERANDS) {
            let operands = [tensor(1, &[3, 2]), tensor(100, &[3, 2]), tensor(101, &[3])];
            for (operand, name) in operands.iter().zip(["?", "weight", "bias"]) {
                let mut answer = run.operand(0, operand.identity, None);
                if answer == Operand::Undescribed {
                    assert!(run.recorder.is_some());
                    answer = run.operand(0, operand.identity, Some(operand));
                }
                if answer == Operand::Patched {
                    out.push(name);
                }
            }
        }
        if wants.has(Wants::OPERATIONS) {
            value(
                run,
                ValueKind::Op(linear),
                "linear",
                tensor(2, &[3, 3]),
                out,
            );
        }
        value(run, ValueKind::Output, "output", tensor(2, &[3, 3]), out);
    }
    run.leave();
}

/// One forward of the model, as the adapter would tell it.
fn forward(model: &Model) -> Option<(Vec<Wants>, Targeted)> {
    let (mut run, wants) = Run::begin(model.root.clone())?;
    let (mut all, mut out) = (vec![wants], Vec::new());
    if wants.has(Wants::PARAMETERS) {
        run.set_parameters([100, 101].into_iter());
    }
    value(
        &mut run,
        ValueKind::Input(0),
        "x",
        tensor(1, &[3, 2]),
        &mut out,
    );
    call_linear(&mut run, model, &mut all, &mut out);
    let add = ValueKind::Op(ops::define("aten::add.Tensor"));
    value(&mut run, add, "add", tensor(3, &[3, 2]), &mut out);
    call_linear(&mut run, model, &mut all, &mut out);
    value(
        &mut run,
        ValueKind::Output,
        "output",
        tensor(2, &[3, 3]),
        &mut out,
    );
    run.end();
    Some((all, out))
}

pub(super) fn with_session<T>(body: impl FnOnce(&Arc<Session>) -> T) -> T {
    let _alone = ATTACH.lock();
    let session = Session::open();
    session.make_current().unwrap();
    let result = body(&session);
    session.detach();
    result
}

fn add(session: &Arc<Session>, patch: &str) -> u64 {
    session.add_patch(patch.parse().unwrap()).unwrap()
}

#[test]
fn those_who_ask_for_graphs_share_them_until_they_change() {
    with_session(|session| {
        session.set_recording(true);
        forward(&model()).unwrap();
        let (mut one, other) = (session.graphs(), session.graphs());
        assert!(std::ptr::eq(&*one[0].root, &*other[0].root));
        assert!(std::ptr::eq(&*one[0].root, &*session.graphs()[0].root));
        one[0].root.children.clear();
        assert!(!other[0].root.children.is_empty());
        assert_eq!(session.graphs(), other);
    });
}

#[test]
fn a_stream_becomes_the_tree_of_the_spec() {
    with_session(|session| {
        assert!(forward(&model()).is_none(), "an idle session wants no run");
        session.set_recording(true);
        for _ in 0..3 {
            forward(&model()).unwrap();
        }
        let graphs = session.graphs();
        assert_eq!((graphs.len(), graphs[0].runs, session.runs()), (1, 3, 3));
        let expected = "\
<root>: Graph(5)
├─x: Tensor(3, 2)
├─linear: Graph(5)
│ ├─input: Tensor(3, 2)
│ ├─weight: Tensor(3, 2)
│ ├─bias: Tensor(3)
│ ├─linear: Tensor(3, 3)
│ └─output: Tensor(3, 3)
├─add: Tensor(3, 2)
├─linear_1: Graph(5)
│ ├─input: Tensor(3, 2)
│ ├─weight: Tensor(3, 2)
│ ├─bias: Tensor(3)
│ ├─linear: Tensor(3, 3)
│ └─output: Tensor(3, 3)
└─output: Tensor(3, 3)
";
        assert_eq!(graphs[0].tree(&NodePath::root()).unwrap(), expected);
    });
}

#[test]
fn a_patch_arms_its_own_scope_only_and_meets_the_same_names() {
    with_session(|session| {
        let id = add(session, "linear_1.linear=zero");
        ops::exists("aten::linear");
        let (all, met) = forward(&model()).unwrap();
        assert!(
            all[0].has(Wants::OPERATIONS),
            "the root counts what `linear_1` is"
        );
        assert!(
            all[1].is_cold() && !all[1].has(Wants::OPERATIONS),
            "the first call is left alone"
        );
        assert!(all[2].has(Wants::OPERATIONS) && !all[2].has(Wants::OPERANDS));
        assert_eq!(met, ["linear"]);
        session.remove_patch(id).unwrap();

        add(session, "linear_0.weight=zero");
        add(session, "output=zero");
        let (all, met) = forward(&model()).unwrap();
        assert!(all[1].has(Wants::OPERANDS) && all[2].is_cold());
        assert_eq!(met, ["weight", "output"]);
    });
}

#[test]
fn a_run_keeps_the_patches_it_began_with() {
    with_session(|session| {
        let id = add(session, "add=zero");
        let model = model();
        let (mut run, _) = Run::begin(model.root.clone()).unwrap();
        session.remove_patch(id).unwrap();
        let op = ValueKind::Op(ops::define("aten::add.Tensor"));
        assert!(run.value_begin(op).unwrap().1.targets);
        run.end();
        assert!(Run::begin(model.root).is_none());
    });
}

#[test]
fn failures_are_counted_and_raised_or_skipped() {
    with_session(|session| {
        add(session, "add[5]=zero");
        add(session, "size=add:0.5");
        let (mut run, _) = Run::begin(model().root).unwrap();
        let mut memory = [1.0f32; 6];
        let view = View::over(&mut memory, &[3, 2], &[2, 1], Dtype::F32).unwrap();
        assert_eq!(run.apply(0, &view), Verdict::Raise);
        let text = run.failure().to_owned();
        for part in ["add[5]=zero", "(3, 2)", "[5]", "out of bounds"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(run.apply_scalar(1, &mut Scalar::Int(3)), Verdict::Raise);
        run.end();

        session.set_on_error(OnError::Skip);
        let (mut run, _) = Run::begin(model().root).unwrap();
        assert_eq!(run.apply(0, &view), Verdict::Skipped);
        run.end();
        let counts = session.patch_counts();
        assert_eq!(
            (counts[0].matched, counts[0].applied, counts[0].failed),
            (2, 0, 2)
        );
        assert_eq!(memory, [1.0; 6]);
    });
}

#[test]
fn operations_are_counted_until_the_last_patched_one_was_met() {
    with_session(|session| {
        for patch in ["add=zero", "add_2=zero", "mul=zero"] {
            add(session, patch);
        }
        let (mut run, _) = Run::begin(model().root).unwrap();
        let mut call = |schema| {
            let begun = run.value_begin(ValueKind::Op(ops::define(schema)));
            let found = begun.map(|(token, wants)| (token.name.to_string(), wants.targets));
            (found, run.wants().has(Wants::OPERATIONS))
        };
        let named = |name: &str, targets| Some((name.to_owned(), targets));
        let (add, mul) = ("aten::add.Tensor", "aten::mul.Tensor");
        assert_eq!(call(add), (named("add", true), true));
        assert_eq!(call(mul), (named("mul", true), true));
        assert_eq!(call(add), (named("add_1", false), true));
        assert_eq!(call(add), (named("add_2", true), false));
        run.end();
    });
}
