//! The tree as text, as SPEC part 2 draws it, and as a person at a terminal may want it: cut, folded, counted, colored.

use std::fmt::Write;

use super::{Graph, Kind, Node, Value};
use crate::error::{Error, Result};
use crate::path::NodePath;

/// What a piece of a tree's text is, for who colors it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The lines of the tree itself.
    Branch,
    Scope,
    Input,
    Parameter,
    Op,
    Output,
    /// An element of a container.
    Element,
    /// The type behind a name.
    Label,
    /// What is said of a scope: counts, and what it is the same as.
    Remark,
}

/// How a tree is drawn; the default is the text of SPEC part 2.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeStyle {
    /// How many levels below the first line are drawn.
    pub depth: Option<usize>,
    /// Whether a scope that looks like its neighbor before it is one line.
    pub fold: bool,
    /// Whether scopes say how much is in them.
    pub counts: bool,
    /// Writes a piece of text in its color.
    pub paint: Option<fn(&mut String, Part, &str)>,
}

impl Graph {
    /// The tree below a path, whose first line is the node's own name. Every line ends with `\n`.
    pub fn tree(&self, path: &NodePath) -> Result<String> {
        self.styled_tree(path, TreeStyle::default())
    }

    /// The same in another style.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] for a path that is not there.
    pub fn styled_tree(&self, path: &NodePath, style: TreeStyle) -> Result<String> {
        let node = self.node(path).ok_or_else(|| self.unknown(path))?;
        let mut drawing = Drawing {
            text: String::new(),
            style,
        };
        let depth = style.depth.unwrap_or(usize::MAX);
        match path.dig.last() {
            None => drawing.node("", "", node, depth),
            Some(key) if !node.is_scope() => match node.value.element(&path.dig) {
                Some(value) => drawing.value("", "", Part::Element, key, &value, depth),
                None => return Err(self.unknown(path)),
            },
            Some(_) => return Err(self.unknown(path)),
        }
        Ok(drawing.text)
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

struct Drawing {
    text: String,
    style: TreeStyle,
}

impl Drawing {
    /// Draws a line and everything below it. `first` stands before the node's own line, `rest` before the lines below.
    fn node(&mut self, first: &str, rest: &str, node: &Node, depth: usize) {
        let part = match node.kind {
            Kind::Input => Part::Input,
            Kind::Parameter => Part::Parameter,
            Kind::Op => Part::Op,
            Kind::Scope => Part::Scope,
            Kind::Output => Part::Output,
        };
        if !node.is_scope() {
            return self.value(first, rest, part, &node.name, &node.value, depth);
        }
        let remark = match self.style.counts {
            true => Counts::of(node).to_string(),
            false => String::new(),
        };
        let label = format!("Graph({})", node.children.len());
        self.line(first, part, &node.name, &label, &remark);
        if depth == 0 {
            return;
        }
        let mut at = 0;
        while let Some(child) = node.children.get(at) {
            let alike = match self.style.fold {
                true => repeats(&node.children[at..]),
                false => 0,
            };
            let last = at + alike + 1 == node.children.len();
            let (first, below) = branch(rest, last && alike == 0);
            self.node(&first, &below, child, depth - 1);
            if alike > 0 {
                let (begin, end) = (&node.children[at + 1], &node.children[at + alike]);
                let name = match alike {
                    1 => begin.name.clone(),
                    _ => format!("{} … {}", begin.name, end.name),
                };
                let (first, _) = branch(rest, last);
                let same = format!("same as {}", child.name);
                self.line(&first, part, &name, "", &same);
            }
            at += alike + 1;
        }
    }

    fn value(
        &mut self,
        first: &str,
        rest: &str,
        part: Part,
        name: &str,
        value: &Value,
        depth: usize,
    ) {
        self.line(first, part, name, &value.label(), "");
        if depth == 0 {
            return;
        }
        let elements = value.elements();
        for (i, (key, element)) in elements.iter().enumerate() {
            let (first, rest) = branch(rest, i + 1 == elements.len());
            self.value(&first, &rest, Part::Element, key, element, depth - 1);
        }
    }

    fn line(&mut self, indent: &str, part: Part, name: &str, label: &str, remark: &str) {
        self.paint(Part::Branch, indent);
        self.paint(part, &plain(name));
        let label = plain(label);
        for (part, said) in [(Part::Label, label.trim_end()), (Part::Remark, remark)] {
            if !said.is_empty() {
                self.text
                    .push_str(if part == Part::Label || label.is_empty() {
                        ": "
                    } else {
                        "  "
                    });
                self.paint(part, said);
            }
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    fn paint(&mut self, part: Part, text: &str) {
        match self.style.paint {
            Some(paint) if !text.is_empty() => paint(&mut self.text, part, text),
            _ => self.text.push_str(text),
        }
    }
}

/// Control characters (in a dict's key or a type's name) must not break the tree.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn branch(indent: &str, last: bool) -> (String, String) {
    if last {
        (format!("{indent}└─"), format!("{indent}  "))
    } else {
        (format!("{indent}├─"), format!("{indent}│ "))
    }
}

/// How many of the scopes behind the first one look exactly like it.
fn repeats(siblings: &[Node]) -> usize {
    let Some((first, others)) = siblings.split_first() else {
        return 0;
    };
    if !first.is_scope() || first.children.is_empty() {
        return 0;
    }
    others
        .iter()
        .take_while(|other| other.is_scope() && is_alike(first, other))
        .count()
}

/// Whether two nodes have the same tree but for their own names.
fn is_alike(a: &Node, b: &Node) -> bool {
    let same = |(a, b): (&Node, &Node)| a.name == b.name && is_alike(a, b);
    a.kind == b.kind
        && a.value == b.value
        && a.children.len() == b.children.len()
        && a.children.iter().zip(&b.children).all(same)
}

/// How much is in a scope, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub nodes: usize,
    pub operations: usize,
    pub parameters: usize,
    pub scopes: usize,
}

impl Counts {
    pub fn of(scope: &Node) -> Counts {
        let mut counts = Counts::default();
        counts.add(scope);
        counts
    }

    fn add(&mut self, scope: &Node) {
        for child in &scope.children {
            self.nodes += 1;
            match child.kind {
                Kind::Op => self.operations += 1,
                Kind::Parameter => self.parameters += 1,
                Kind::Scope => self.scopes += 1,
                Kind::Input | Kind::Output => {}
            }
            self.add(child);
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (n, one, many) in [
            (self.nodes, "node", "nodes"),
            (self.operations, "operation", "operations"),
            (self.parameters, "parameter", "parameters"),
            (self.scopes, "scope", "scopes"),
        ] {
            let comma = if text.is_empty() { "" } else { ", " };
            match n {
                0 => {}
                1 => write!(text, "{comma}1 {one}")?,
                n => write!(text, "{comma}{n} {many}")?,
            }
        }
        f.write_str(&text)
    }
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
            styled(&graph, fold)
                .ends_with("│ └─output: Tensor(3, 3)\n└─linear_1: same as linear_0\n")
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
}
