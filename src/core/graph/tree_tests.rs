//! Trees as text.

use std::fmt::Write;

use super::super::samples::{leaf, tensor, tuple_output};
use super::super::{Dim, Kind, TensorInfo};
use super::*;

fn tree(graph: &Graph, path: &str) -> String {
    graph.tree(&path.parse().unwrap()).unwrap()
}

#[test]
fn draws_scopes_leaves_and_containers() {
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
└─output: tuple(2)
  ├─sub_0: Tensor(3, 3)
  └─sub_1: Tensor(3, 3)
";
    assert_eq!(tree(&tuple_output(), ""), expected);
}

#[test]
fn draws_subtrees() {
    let graph = tuple_output();
    assert!(tree(&graph, "linear_1").starts_with("linear_1: Graph(5)\n├─input: Tensor(3, 2)\n"));
    assert!(tree(&graph, "linear_0").starts_with("linear: Graph(5)\n"));
    assert_eq!(tree(&graph, "linear.bias"), "bias: Tensor(3)\n");
    assert_eq!(
        tree(&graph, "output"),
        "output: tuple(2)\n├─sub_0: Tensor(3, 3)\n└─sub_1: Tensor(3, 3)\n"
    );
    assert_eq!(tree(&graph, "output|sub_1"), "sub_1: Tensor(3, 3)\n");
}

#[test]
fn draws_every_kind_of_value() {
    let mut graph = Graph::new("g");
    let range = TensorInfo {
        shape: vec![Dim::of(1), Dim { min: 5, max: 128 }],
        ..Default::default()
    };
    let dict = Value::Dict(vec![
        (
            "a\nb".into(),
            Value::List(vec![Value::Tensor(range), tensor(&[])]),
        ),
        ("c".into(), Value::Tuple(vec![])),
    ]);
    graph.root.children = vec![
        leaf(Kind::Input, "n", Value::Int),
        leaf(Kind::Input, "cache", Value::Other("DynamicCache".into())),
        leaf(Kind::Output, "output", dict),
    ];
    let expected = "\
<root>: Graph(3)
├─n: int
├─cache: DynamicCache
└─output: dict(2)
  ├─a\\nb: list(2)
  │ ├─sub_0: Tensor(1, 5..128)
  │ └─sub_1: Tensor()
  └─c: tuple(0)
";
    assert_eq!(tree(&graph, ""), expected);
    assert_eq!(tree(&Graph::new("empty"), ""), "<root>: Graph(0)\n");
}

fn styled(graph: &Graph, style: TreeStyle) -> String {
    graph.styled_tree(&NodePath::root(), style).unwrap()
}

#[test]
fn trees_are_cut_and_counted() {
    let style = TreeStyle {
        depth: Some(1),
        counts: true,
        ..TreeStyle::default()
    };
    let expected = "\
<root>: Graph(5)  15 nodes, 3 operations, 4 parameters, 2 scopes
├─x: Tensor(3, 2)
├─linear: Graph(5)  5 nodes, 1 operation, 2 parameters
├─add: Tensor(3, 2)
├─linear_1: Graph(5)  5 nodes, 1 operation, 2 parameters
└─output: tuple(2)
";
    assert_eq!(styled(&tuple_output(), style), expected);
}

#[test]
fn neighbors_that_look_the_same_are_folded() {
    let fold = TreeStyle {
        fold: true,
        ..TreeStyle::default()
    };
    let mut graph = tuple_output();
    assert_eq!(styled(&graph, fold), tree(&graph, ""), "no neighbors");
    graph.root.children = (0..5)
        .map(|n| super::super::samples::linear(&format!("linear_{n}")))
        .collect();
    graph.root.children[3].children[0].value = tensor(&[4, 2]);
    let text = styled(&graph, fold);
    let tops: Vec<&str> = text.lines().filter(|l| l.contains("linear_")).collect();
    let expected = [
        "├─linear_0: Graph(5)",
        "├─linear_1 … linear_2: same as linear_0",
        "├─linear_3: Graph(5)",
        "└─linear_4: Graph(5)",
    ];
    assert_eq!(tops, expected, "{text}");
    graph.root.children.pop();
    graph.root.children.pop();
    assert!(styled(&graph, fold).ends_with("└─linear_1 … linear_2: same as linear_0\n"));
    graph.root.children.pop();
    assert!(
        styled(&graph, fold).ends_with("│ └─output: Tensor(3, 3)\n└─linear_1: same as linear_0\n")
    );
}

#[test]
fn pieces_are_painted() {
    let paint = |text: &mut String, part: Part, piece: &str| {
        let _ = write!(text, "<{part:?}>{piece}");
    };
    let style = TreeStyle {
        paint: Some(paint),
        depth: Some(0),
        counts: true,
        ..TreeStyle::default()
    };
    let text = styled(&tuple_output(), style);
    assert!(
        text.starts_with("<Scope><root>: <Label>Graph(5)  <Remark>15 nodes"),
        "{text}"
    );
}

#[test]
fn unknown_paths_are_refused() {
    for path in ["nothing", "x.y", "x|sub_0", "linear|sub_0", "output|sub_2"] {
        let error = tuple_output().tree(&path.parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Path(_)), "{path}");
    }
}
