//! How a tape becomes a tree.

use std::sync::Arc;

use super::args::{Args, Source};
use super::element::Tag;
use super::tape::Tape;
use crate::record::Element;
use graphpatch_core::graph::{Arg, Graph, Kind, Node, SourceLine, Value};
use graphpatch_core::path::Name;

fn tensor(sizes: &[i64]) -> Element<'_> {
    Element {
        sizes,
        dtype: "float32",
        device: "cuda",
        device_index: Some(1),
        layout: "strided",
        ..Element::of(Tag::Tensor)
    }
}

fn container(tag: Tag, count: usize) -> Element<'static> {
    Element {
        count,
        ..Element::of(tag)
    }
}

fn record(length: i64) -> Tape {
    let text = |t: &str| -> Arc<str> { t.into() };
    let name = Name::candidate;
    let mut tape = Tape::new(Vec::new());
    tape.leaf(
        0,
        Kind::Input,
        name("x"),
        &text(""),
        &[tensor(&[1, length])],
        None,
    );
    tape.enter(
        name("layers.0"),
        &text("Block"),
        &text("layers.0"),
        Source::default(),
    );
    tape.leaf(
        1,
        Kind::Parameter,
        name("scale"),
        &text("scale"),
        &[tensor(&[])],
        None,
    );
    let dict = [
        container(Tag::Tuple, 2),
        container(Tag::Dict, 1),
        Element {
            key: "hidden",
            ..tensor(&[2, 3])
        },
        Element::of(Tag::Int),
    ];
    tape.leaf(0, Kind::Op, name("topk"), &text("aten::topk"), &dict, None);
    tape.leave();
    tape.leaf(0, Kind::Output, name("output"), &text(""), &[], None);
    tape
}

#[test]
fn a_tape_becomes_a_tree() {
    let tree = record(5).tree("Model");
    let graph = Graph {
        root: tree.into(),
        ..Graph::new("Model.forward")
    };
    let text = graph
        .tree(&graphpatch_core::path::NodePath::root())
        .unwrap();
    let expected = "\
<root>: Graph(4)
├─x: Tensor(1, 5)
├─scale: Tensor()
├─layers_0: Graph(1)
│ └─topk: tuple(2)
│   ├─sub_0: dict(1)
│   │ └─hidden: Tensor(2, 3)
│   └─sub_1: int
└─output: NoneType
";
    assert_eq!(text, expected);
    let Value::Tensor(info) = &graph.root.children[0].value else {
        panic!("no tensor");
    };
    assert_eq!(info.device, "cuda:1");
    assert_eq!(graph.root.children[2].module_path, "layers.0");
}

#[test]
fn equal_runs_leave_equal_tapes() {
    assert_eq!(record(5), record(5));
    assert_ne!(record(5), record(6));
}

#[test]
fn an_open_scope_is_closed_and_missing_elements_do_no_harm() {
    let mut tape = record(1);
    tape.enter(
        Name::candidate("late"),
        &"".into(),
        &"late".into(),
        Source::default(),
    );
    tape.leaf(
        0,
        Kind::Op,
        Name::candidate("add"),
        &"".into(),
        &[container(Tag::List, 2)],
        None,
    );
    let tree = tape.tree("");
    let late = tree.child("late").unwrap();
    assert!(matches!(&late.children[0].value, Value::List(list) if list.len() == 2));
}

/// A root that hands `x` to a module twice, the second time by way of a list, and keeps what the module saw.
fn flow() -> Node {
    let mut tape = Tape::new(Vec::new());
    let tensor = |identity| Element {
        identity,
        ..tensor(&[2])
    };
    let text = |t: &str| -> Arc<str> { t.into() };
    let leaf = |tape: &mut Tape, kind, name, value: &[Element<'_>], args: &[Element<'_>]| {
        let args = (kind != Kind::Parameter).then(|| Args::new(args, Source::default()));
        tape.leaf(
            0,
            kind,
            Name::candidate(name),
            &text("aten::op"),
            value,
            args,
        );
    };
    let list = [container(Tag::List, 2), tensor(2), tensor(3)];
    leaf(&mut tape, Kind::Input, "x", &[tensor(1)], &[tensor(1)]);
    leaf(&mut tape, Kind::Op, "chunk", &list, &[tensor(1)]);
    tape.enter(
        Name::candidate("inner"),
        &text("Inner"),
        &text("inner"),
        Source::default(),
    );
    leaf(&mut tape, Kind::Input, "h", &[tensor(3)], &[tensor(3)]);
    leaf(
        &mut tape,
        Kind::Op,
        "relu",
        &[tensor(4)],
        &[tensor(3), tensor(1)],
    );
    leaf(
        &mut tape,
        Kind::Output,
        "output",
        &[tensor(4)],
        &[tensor(4)],
    );
    tape.leave();
    leaf(
        &mut tape,
        Kind::Op,
        "add",
        &[tensor(5)],
        &[tensor(4), tensor(9)],
    );
    leaf(
        &mut tape,
        Kind::Output,
        "output",
        &[tensor(5)],
        &[tensor(5)],
    );
    tape.tree("Root")
}

#[test]
fn arguments_have_the_names_that_their_scope_knows_them_by() {
    let root = flow();
    let args = |node: &Node| node.args.clone();
    let node = |name: &str| Arg::Node(name.into());
    assert!(args(&root.children[0]).is_empty(), "a run has no caller");
    assert_eq!(args(&root.children[1]), [node("x")]);
    let inner = &root.children[2].children;
    assert_eq!(
        args(&inner[0]),
        [node("chunk|sub_1")],
        "in the caller's words"
    );
    assert_eq!(args(&inner[1]), [node("h"), Arg::Outer("x".into())]);
    assert_eq!(args(&inner[2]), [node("relu")]);
    let add = [node("inner"), Arg::Const("<Tensor(2)>".into())];
    assert_eq!(args(&root.children[3]), add);
    assert_eq!(args(&root.children[4]), [node("add")]);
}

#[test]
fn a_tape_knows_what_an_earlier_one_came_to_on_the_same_way() {
    let known = Arc::new(record(5).forget());
    let mut tape = Tape::new(vec![known]);
    let (x, y) = (Name::candidate("x"), Name::candidate("y"));
    assert!(tape.knows(Kind::Input, x));
    assert!(!tape.knows(Kind::Op, x));
    assert!(!tape.knows(Kind::Input, y));
    assert!(tape.knows(Kind::Input, x), "asking changes nothing");
    tape.leaf(0, Kind::Input, y, &"".into(), &[], None);
    assert!(
        !tape.knows_scope(Name::candidate("layers.0")),
        "it came another way"
    );
    let mut tape = Tape::new(vec![Arc::new(record(7).forget())]);
    tape.leaf(0, Kind::Input, x, &"".into(), &[tensor(&[2])], None);
    assert!(
        tape.knows_scope(Name::candidate("layers.0")),
        "shapes do not matter"
    );
}

#[test]
fn scopes_that_are_entered_again_are_the_same_all_the_way_down() {
    let text = |t: &str| -> Arc<str> { t.into() };
    let mut tape = Tape::new(Vec::new());
    for op in ["linear", "add", "mul"] {
        for scope in ["h.0", "attn"] {
            tape.enter(
                Name::candidate(scope),
                &text("M"),
                &text(scope),
                Source::default(),
            );
        }
        tape.leaf(
            0,
            Kind::Op,
            Name::candidate(op),
            &text(""),
            &[tensor(&[2])],
            None,
        );
        tape.leave();
        tape.leave();
    }
    let root = tape.tree("Root");
    assert_eq!(root.children.len(), 1);
    assert_eq!(root.children[0].children.len(), 1);
    let inner = root.children[0].children[0].children.iter();
    let names: Vec<&str> = inner.map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["linear", "add", "mul"]);
}

/// Nodes are kept as long as their session, and there may be very many.
#[test]
fn nodes_have_no_spare_room() {
    let mut tape = Tape::new(Vec::new());
    let frame = SourceLine {
        file: "net.py".into(),
        line: 3,
        ..SourceLine::default()
    };
    for at in 0..5 {
        let name = Name::candidate(&format!("add_{at}"));
        let source = Source {
            frames: vec![frame.clone()],
            ..Source::default()
        };
        let args = Args::new(&[tensor(&[2]), tensor(&[2])], source);
        tape.leaf(
            0,
            Kind::Op,
            name,
            &"aten::add".into(),
            &[tensor(&[2])],
            Some(args),
        );
    }
    let root = tape.tree("Model");
    assert_eq!((root.children.len(), root.children.capacity()), (5, 5));
    for node in &root.children {
        assert_eq!((node.frames.len(), node.frames.capacity()), (1, 1));
        assert_eq!((node.args.len(), node.args.capacity()), (2, 2));
        assert_eq!(node.kwargs.capacity(), 0);
    }
}
