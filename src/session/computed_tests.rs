//! Values that compiled code computes at places that are known.

use std::sync::Arc;

use super::record::{Element, Tag};
use super::{InnerScope, Root, Run, Scope, Session, ValuePath, ops};
use graphpatch_core::graph::{Kind, Node};
use graphpatch_core::path::Name;

fn place(scopes: &[&str], name: &str) -> ValuePath {
    let inner = |scope: &&str| InnerScope {
        name: Name::parse(scope),
        class_name: "Module".into(),
        module_path: (*scope).into(),
    };
    ValuePath {
        scopes: scopes.iter().map(inner).collect(),
        name: Name::parse(name),
    }
}

fn run(session: &Arc<Session>) -> Option<Run> {
    let scope = Arc::new(Scope::new("", "", "Model", vec![]));
    let root = Arc::new(Root::new(scope, "Model.run", vec![]));
    Run::begin_for(session.clone(), root).map(|(run, _)| run)
}

fn leaves(node: &Node, path: &str, out: &mut Vec<String>) {
    for child in &node.children {
        let below = format!("{path}.{}", child.name);
        match child.kind {
            Kind::Scope => leaves(child, &below, out),
            _ => out.push(below),
        }
    }
}

#[test]
fn a_value_is_recorded_in_its_scopes() {
    let session = Session::open();
    session.set_recording(true);
    let mut run = run(&session).unwrap();
    let id = ops::define("aten::linear");
    for (scopes, name) in [
        (&["h_0", "up"][..], "linear"),
        (&[], "linear_7"),
        (&["h_0", "down"], "linear"),
    ] {
        let (token, wants) = run.computed(&place(scopes, name), id).unwrap();
        assert!(wants.elements && !wants.targets);
        run.value(&token, &[Element::of(Tag::None)]);
    }
    let (dropped, _) = run.computed(&place(&["h_1"], "gelu"), id).unwrap();
    run.abandon(&dropped);
    run.end();
    let graph = &session.graphs()[0];
    let mut paths = Vec::new();
    leaves(&graph.root, "", &mut paths);
    assert_eq!(paths, [".h_0.up.linear", ".h_0.down.linear", ".linear_7"]);
}

#[test]
fn a_patch_is_met_at_exactly_its_path() {
    let session = Session::open();
    for path in ["h_0.up.linear", "add_3"] {
        let spec = format!("{path}=zero").parse().unwrap();
        session.add_patch(spec).unwrap();
    }
    let mut run = run(&session).unwrap();
    let id = ops::define("aten::linear");
    let mut met = |scopes: &[&str], name| run.computed(&place(scopes, name), id).is_some();
    assert!(met(&["h_0", "up"], "linear"));
    assert!(met(&[], "add_3"));
    assert!(!met(&["h_0"], "linear"));
    assert!(!met(&["h_0", "up"], "linear_1"));
    assert!(!met(&[], "add"));
}
