//! Saving and loading, and what is said of files that cannot be loaded.

use super::file::*;
use super::samples::{leaf, tensor, tuple_output};
use super::{Arg, Kind, SourceLine};
use super::{Graph, Node, Value};
use crate::error::Error;
use std::path::Path;

fn place(json: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.json");
    std::fs::write(&file, json).unwrap();
    match GraphFile::load(&file) {
        Err(Error::Format { place, why, .. }) => (place, why),
        other => panic!("{other:?}"),
    }
}

fn full() -> GraphFile {
    let mut graph = tuple_output();
    let node = &mut graph.root.children[2];
    node.target = "aten::add.Tensor".into();
    node.args = vec![
        Arg::Node("x".into()),
        Arg::Const("1".into()),
        Arg::Dict(vec![("k".into(), Arg::List(vec![]))]),
    ];
    node.kwargs = vec![("alpha".into(), Arg::Tuple(vec![Arg::Const("1".into())]))];
    node.frames = vec![SourceLine {
        file: "m.py".into(),
        line: 3,
        function: "forward".into(),
        text: "x + 1".into(),
    }];
    let value = Value::Mixed(vec![
        Value::Dict(vec![("a".into(), Value::Undefined)]),
        Value::Other("T".into()),
    ]);
    graph
        .root
        .children
        .insert(1, leaf(Kind::Input, "odd", value));
    GraphFile::new(vec![graph, Graph::new("empty")])
}

#[test]
fn saves_and_loads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.json");
    let saved = full();
    saved.save(&file).unwrap();
    saved.save(&file).unwrap();
    assert_eq!(GraphFile::load(&file).unwrap(), saved);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    GraphFile::new(vec![]).save(Path::new("/dev/null")).unwrap();
    assert!(matches!(
        saved.save(&folder.path().join("no/g.json")),
        Err(Error::File { .. })
    ));
    assert!(matches!(
        GraphFile::load(&folder.path().join("none")),
        Err(Error::File { .. })
    ));
}

#[test]
fn json_is_compact() {
    let json = serde_json::to_string(&leaf(Kind::Op, "add", tensor(&[3]))).unwrap();
    let info = r#"{"shape":[3],"dtype":"float32","device":"cpu","layout":"strided"}"#;
    assert_eq!(
        json,
        format!(r#"{{"name":"add","kind":"op","value":{{"tensor":{info}}}}}"#)
    );
}

#[test]
fn names_the_place() {
    let graph = |root: &str| {
        format!("{{\"format\":1,\"graphs\":[{{\"name\":\"g\",\"runs\":1,\"root\":{root}}}]}}")
    };
    let scope = |children: &str| {
        graph(&format!(
            r#"{{"name":"r","kind":"scope","children":[{children}]}}"#
        ))
    };
    for (json, at, why) in [
        (
            "{\"format\": 1,\n \"graphs\": [",
            "line 2, column 12",
            "damaged",
        ),
        ("", "the beginning", "it is empty"),
        ("\u{0}PK", "the beginning", "it is binary"),
        ("not json", "the beginning", "it is a text, not JSON"),
        ("{not json", "line 1, column 2", "damaged, not valid JSON"),
        ("PK\u{3}\u{4}...", "the beginning", "torch.save"),
        (
            "\u{8}\0\0\0\0\0\0\0{}",
            "the beginning",
            "a safetensors file",
        ),
        ("[1, []]", "the beginning", "not a graph"),
        ("{}", "`format`", "missing"),
        ("{\"format\": \"1.0\"}", "`format`", "not a version number"),
        ("{\"format\": 1}", "`graphs`", "not a graph"),
        (
            "{\"format\": 7, \"graphs\": 3}",
            "`format`",
            "reads up to format 1: use a newer",
        ),
        (
            "{\"format\":1,\n\"graphs\":[{\"name\":3}]}",
            "line 2, column 19, graphs[0].name",
            "expected a string",
        ),
        (
            &graph(r#"{"name":"r","kind":"op"}"#),
            "graphs[0].root",
            "not a scope",
        ),
        (
            &scope(r#"{"name":"","kind":"op"}"#),
            "graphs[0].root.children[0].name (node ?)",
            "without a name",
        ),
        (
            &scope(r#"{"name":"a","kind":"op"},{"name":"a","kind":"op"}"#),
            "graphs[0].root.children[1].name (node a)",
            "second",
        ),
        (
            &scope(r#"{"name":"a","kind":"op","children":[{"name":"b","kind":"op"}]}"#),
            "graphs[0].root.children[0].children (node a)",
            "only a scope",
        ),
        (
            &scope(r#"{"name":"a","kind":"op","value":{"mixed":[]}}"#),
            "graphs[0].root.children[0].value (node a)",
            "mixed",
        ),
        (
            &scope(r#"{"name":"s","kind":"scope","children":[{"name":"a","kind":"opp"}]}"#),
            "line 1, column 152, graphs[0].root.children[0].children[0].kind (node s.a)",
            "unknown variant `opp`",
        ),
    ] {
        let found = place(json);
        assert!(found.0 == at && found.1.contains(why), "{json}: {found:?}");
    }
}

#[test]
fn what_is_saved_can_be_loaded_however_deep() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.json");
    for depth in (1..80).chain([500]) {
        let mut node = leaf(Kind::Op, "[{\"\\", Value::Int);
        for _ in 0..depth {
            node = Node::new(Kind::Scope, "s").with_children(vec![node]);
        }
        let saved = GraphFile::new(vec![Graph {
            root: node.into(),
            ..Graph::new("g")
        }]);
        saved.save(&file).unwrap();
        assert_eq!(GraphFile::load(&file).unwrap(), saved);
    }
}

#[test]
fn no_damage_panics() {
    let json = serde_json::to_vec(&full()).unwrap();
    for at in 0..json.len() {
        for byte in [b'{', b'"', b'0', b' '] {
            let mut damaged = json.clone();
            damaged[at] = byte;
            let _ = GraphFile::parse(&damaged);
        }
        assert!(GraphFile::parse(&json[..at]).is_err());
    }
}
