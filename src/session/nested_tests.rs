//! Modules that are called inside each other without end, on a thread with an ordinary stack.

use std::sync::Arc;

use graphpatch_core::graph::{GraphFile, Node};
use graphpatch_core::path::NodePath;

use super::enter::{DEEPEST, TOO_DEEP};
use super::run_tests::{tensor, value};
use super::{Root, Run, Scope, Session, ValueKind, ops};

fn scope(name: &str) -> Arc<Scope> {
    Arc::new(Scope::new(name, name, "Layer", vec!["x".into()]))
}

/// Records a run that calls modules `depth` deep inside each other, twice one after the other, each with an operation.
fn record(session: &Arc<Session>, depth: usize) {
    let root = Arc::new(Root::new(scope(""), "Deep.forward", vec![]));
    let (layer, add) = (scope("a"), ValueKind::Op(ops::define("aten::add.Tensor")));
    let (mut run, _) = Run::begin_for(session.clone(), root).expect("a run");
    let mut out = Vec::new();
    for _ in 0..2 {
        for _ in 0..depth {
            if !run.enter(layer.clone()).wants.is_cold() {
                value(&mut run, add, "add", tensor(1, &[4]), &mut out);
            }
        }
        for _ in 0..depth {
            run.leave();
        }
    }
    value(&mut run, add, "add", tensor(1, &[4]), &mut out);
    run.end();
}

fn depth(root: &Node) -> usize {
    let (mut node, mut depth) = (root, 0);
    while let Some(inner) = node.child("a") {
        (node, depth) = (inner, depth + 1);
    }
    depth
}

#[test]
fn what_nests_without_end_is_recorded_up_to_a_depth() {
    let session = Session::open();
    session.set_recording(true);
    for wanted in [20_000, 100_000, 3] {
        record(&session, wanted);
        let graphs = session.graphs();
        let root = &graphs[0].root;
        assert_eq!(depth(root), DEEPEST);
        let names: Vec<_> = root.children.iter().map(|node| &node.name).collect();
        assert_eq!(names, ["a", "a_1", "add"], "after the deep ones, too");
        assert_eq!(
            graphs[0]
                .tree(&NodePath::root())
                .expect("tree")
                .matches("add")
                .count(),
            2 * DEEPEST + 1
        );
    }
    assert_eq!(session.notes(), [TOO_DEEP], "once");
    let file = std::env::temp_dir().join(format!("graphpatch-nested-{}.json", std::process::id()));
    let saved = GraphFile::new(session.graphs());
    saved.save(&file).expect("saved");
    let loaded = GraphFile::load(&file);
    std::fs::remove_file(&file).expect("removed");
    assert!(loaded.expect("loaded") == saved);
}

#[test]
fn just_so_deep_is_not_too_deep() {
    let session = Session::open();
    session.set_recording(true);
    record(&session, DEEPEST);
    assert_eq!(depth(&session.graphs()[0].root), DEEPEST);
    assert!(session.notes().is_empty());
}

#[test]
fn patches_above_the_depth_hold() {
    let session = Session::open();
    session
        .add_patch("a.a.add=zero".parse().expect("patch"))
        .expect("added");
    session
        .add_patch("add=zero".parse().expect("patch"))
        .expect("added");
    let root = Arc::new(Root::new(scope(""), "Deep.forward", vec![]));
    let add = ValueKind::Op(ops::define("aten::add.Tensor"));
    let (mut run, _) = Run::begin_for(session.clone(), root).expect("a run");
    let (layer, mut out) = (scope("a"), Vec::new());
    for _ in 0..20_000 {
        run.enter(layer.clone());
    }
    for _ in 2..20_000 {
        run.leave();
    }
    value(&mut run, add, "inside", tensor(1, &[4]), &mut out);
    run.leave();
    run.leave();
    value(&mut run, add, "outside", tensor(1, &[4]), &mut out);
    assert_eq!(out, ["inside", "outside"]);
}
