//! The tree as text, as SPEC part 2 draws it.

use super::{Graph, Node, Value};
use crate::error::{Error, Result};
use crate::path::NodePath;

impl Graph {
    /// The tree below a path, whose first line is the node's own name. Every line ends with `\n`.
    pub fn tree(&self, path: &NodePath) -> Result<String> {
        let mut text = String::new();
        let node = match self.node(path) {
            Some(node) => node,
            None => return Err(self.unknown(path)),
        };
        match path.dig.last() {
            None => draw_node(&mut text, "", "", node),
            Some(key) if !node.is_scope() => match node.value.element(&path.dig) {
                Some(value) => draw_value(&mut text, "", "", key, &value),
                None => return Err(self.unknown(path)),
            },
            Some(_) => return Err(self.unknown(path)),
        }
        Ok(text)
    }

    pub(super) fn unknown(&self, path: &NodePath) -> Error {
        let graphs = std::slice::from_ref(self);
        Error::Path(super::check::complain(
            "cannot be shown",
            graphs,
            &[(path, self.missing(path))],
        ))
    }
}

/// Draws a line and everything below it. `first` stands before the node's own line, `rest` before the lines below.
fn draw_node(text: &mut String, first: &str, rest: &str, node: &Node) {
    if !node.is_scope() {
        return draw_value(text, first, rest, &node.name, &node.value);
    }
    line(
        text,
        first,
        &node.name,
        &format!("Graph({})", node.children.len()),
    );
    for (i, child) in node.children.iter().enumerate() {
        let (first, rest) = branch(rest, i + 1 == node.children.len());
        draw_node(text, &first, &rest, child);
    }
}

fn draw_value(text: &mut String, first: &str, rest: &str, name: &str, value: &Value) {
    line(text, first, name, &value.label());
    let elements = value.elements();
    for (i, (key, element)) in elements.iter().enumerate() {
        let (first, rest) = branch(rest, i + 1 == elements.len());
        draw_value(text, &first, &rest, key, element);
    }
}

fn branch(indent: &str, last: bool) -> (String, String) {
    if last {
        (format!("{indent}└─"), format!("{indent}  "))
    } else {
        (format!("{indent}├─"), format!("{indent}│ "))
    }
}

/// One line; control characters (in a dict's key or a type's name) must not break the tree.
fn line(text: &mut String, indent: &str, name: &str, label: &str) {
    text.push_str(indent);
    for c in name.chars().chain(": ".chars()).chain(label.chars()) {
        if c.is_control() {
            text.extend(c.escape_default())
        } else {
            text.push(c)
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{Dim, Kind, TensorInfo};
    use super::*;

    fn tree(graph: &Graph, path: &str) -> String {
        graph.tree(&path.parse().unwrap()).unwrap()
    }

    #[test]
    fn draws_the_example_of_the_spec() {
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
        assert!(
            tree(&graph, "linear_1").starts_with("linear_1: Graph(5)\n├─input: Tensor(3, 2)\n")
        );
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

    #[test]
    fn unknown_paths_are_refused() {
        for path in ["nothing", "x.y", "x|sub_0", "linear|sub_0", "output|sub_2"] {
            let error = tuple_output().tree(&path.parse().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Path(_)), "{path}");
        }
    }
}
