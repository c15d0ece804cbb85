//! Searching a graph for nodes by what is known of them.

use std::str::FromStr;

use super::{Dim, Graph, Kind, Node, Value};
use crate::error::{Error, Result};
use crate::path::{NodePath, Pattern, family_text};

/// Sizes to look for: `*,768`, `1,5..128,768`, `...,64`, `` for a scalar. `*` is any size, `...` any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapePattern(Vec<Size>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Any,
    Rest,
    Within(Dim),
}

impl FromStr for ShapePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<ShapePattern> {
        let fail = |at: usize, why: &str| Error::Parse {
            what: "shape",
            text: text.to_owned(),
            at,
            why: why.to_owned(),
        };
        let inner = text.trim();
        let inner = inner.strip_prefix("Tensor").unwrap_or(inner);
        let inner = match inner.strip_prefix('(').map(|rest| rest.strip_suffix(')')) {
            Some(Some(inner)) => inner,
            Some(None) => return Err(fail(text.len(), "a `)` is missing")),
            None if inner.is_empty() => return Err(fail(0, "sizes are missing; a scalar is ()")),
            None => inner,
        };
        let mut sizes = Vec::new();
        let mut at = text.len() - text.trim_start().len();
        let parts: Vec<&str> = match inner.trim() {
            "" => Vec::new(),
            list => list.trim_end_matches(',').split(',').collect(),
        };
        for part in parts {
            let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n >= 0);
            sizes.push(match part.trim() {
                "*" => Size::Any,
                "..." | "…" if sizes.contains(&Size::Rest) => {
                    return Err(fail(at, "a second `...`"));
                }
                "..." | "…" => Size::Rest,
                part => {
                    let (min, max) = part.split_once("..").unwrap_or((part, part));
                    match (number(min), number(max)) {
                        (Some(min), Some(max)) if min <= max => Size::Within(Dim { min, max }),
                        _ => {
                            let why = "expected sizes such as 1, 5..128, * (any) or ... (any number of them)";
                            return Err(fail(at, why));
                        }
                    }
                }
            });
            at += part.len() + 1;
        }
        Ok(ShapePattern(sizes))
    }
}

impl ShapePattern {
    /// Whether some shape that was seen fits.
    pub fn fits(&self, shape: &[Dim]) -> bool {
        let fit = |(size, dim): (&Size, &Dim)| match size {
            Size::Within(wanted) => wanted.min <= dim.max && dim.min <= wanted.max,
            Size::Any | Size::Rest => true,
        };
        match self.0.iter().position(|size| *size == Size::Rest) {
            None => self.0.len() == shape.len() && self.0.iter().zip(shape).all(fit),
            Some(at) => {
                let (before, after) = (&self.0[..at], &self.0[at + 1..]);
                before.len() + after.len() <= shape.len()
                    && before.iter().zip(shape).all(fit)
                    && after.iter().rev().zip(shape.iter().rev()).all(fit)
            }
        }
    }
}

/// What to look for; all that is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Must occur in the path, in the name of the operation or module, or in the name of the source file. Case is ignored.
    pub text: Option<String>,
    pub shape: Option<ShapePattern>,
    /// Must match the path of the node, or, in a search by shape, of its element.
    pub pattern: Option<Pattern>,
    /// An operation's schema (`aten::add.Tensor`), or the name that its nodes have before their numbers (`add`).
    pub op: Option<String>,
    /// A scope's class, whole or its last part.
    pub module: Option<String>,
}

impl Query {
    /// Whether the operation or the module is the one that is asked for.
    fn is_of(&self, node: &Node) -> bool {
        let operation = |op: &String| {
            let has_name = family_text(&node.name) == family_text(op);
            node.kind == Kind::Op && (node.target == *op || has_name)
        };
        let of_class = |class: &String| {
            let target = node.target.as_str();
            node.is_scope() && (target == class || target.ends_with(&format!(".{class}")))
        };
        self.op.as_ref().is_none_or(operation) && self.module.as_ref().is_none_or(of_class)
    }

    fn means(&self, path: &NodePath) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| pattern.fits(path))
    }
}

/// A node that was found, or an element of it.
#[derive(Clone, Debug)]
pub struct Hit<'a> {
    pub path: NodePath,
    pub node: &'a Node,
    /// As the tree shows it.
    pub label: String,
}

impl Graph {
    /// All nodes below `from` that fit, in the graph's order, or `from` itself if it is no scope. Scopes are found only by a
    /// query without a shape.
    pub fn search(&self, from: &NodePath, query: &Query) -> Vec<Hit<'_>> {
        let mut hits = Vec::new();
        let text = query.text.as_ref().map(|text| text.to_lowercase());
        if let Some(node) = self.node(from) {
            let mut search = Search {
                text,
                query,
                hits: &mut hits,
            };
            let from = self.canonical(from);
            for child in &node.children {
                search.node(child, from.child(&child.name));
            }
            if !node.is_scope() {
                search.node(node, from);
            }
        }
        hits
    }
}

struct Search<'a, 'q> {
    text: Option<String>,
    query: &'q Query,
    hits: &'q mut Vec<Hit<'a>>,
}

impl<'a> Search<'a, '_> {
    fn node(&mut self, node: &'a Node, path: NodePath) {
        if self.query.is_of(node) && self.is_said(node, &path) {
            match &self.query.shape {
                None if self.query.means(&path) => self.hits.push(Hit {
                    path: path.clone(),
                    node,
                    label: node.label(),
                }),
                Some(shape) if !node.is_scope() => {
                    self.elements(node, &node.value, shape, path.clone());
                }
                _ => {}
            }
        }
        for child in &node.children {
            self.node(child, path.child(&child.name));
        }
    }

    fn is_said(&self, node: &Node, path: &NodePath) -> bool {
        let Some(text) = &self.text else {
            return true;
        };
        let has = |said: &str| said.to_lowercase().contains(text);
        let innermost = node.frames.last();
        has(&path.to_string())
            || has(&node.target)
            || innermost.is_some_and(|frame| has(&frame.file))
    }

    fn elements(&mut self, node: &'a Node, value: &Value, shape: &ShapePattern, path: NodePath) {
        let fits = |kind: &Value| matches!(kind, Value::Tensor(info) if shape.fits(&info.shape));
        let has = fits(value) || matches!(value, Value::Mixed(kinds) if kinds.iter().any(fits));
        if has && self.query.means(&path) {
            self.hits.push(Hit {
                path: path.clone(),
                node,
                label: value.label(),
            });
        }
        for (key, element) in value.elements() {
            self.elements(node, &element, shape, path.element(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{tensor, tuple_output};
    use super::super::{SourceLine, TensorInfo};
    use super::*;

    fn found(text: Option<&str>, shape: Option<&str>, from: &str) -> Vec<String> {
        let mut graph = tuple_output();
        for call in [1, 3] {
            graph.root.children[call].target = "torch.nn.Linear".into();
        }
        graph.root.children[2].target = "aten::add.Tensor".into();
        graph.root.children[2].frames = vec![SourceLine {
            file: "net/Model.py".into(),
            ..SourceLine::default()
        }];
        let from = match from {
            "" => NodePath::root(),
            from => from.parse().unwrap(),
        };
        let query = Query {
            text: text.map(str::to_owned),
            shape: shape.map(|shape| shape.parse().unwrap()),
            ..Query::default()
        };
        let hits = graph.search(&from, &query);
        hits.iter()
            .map(|hit| format!("{}: {}", hit.path, hit.label))
            .collect()
    }

    #[test]
    fn finds_by_path_operation_class_and_file() {
        assert_eq!(
            found(Some("BIAS"), None, ""),
            ["linear.bias: Tensor(3)", "linear_1.bias: Tensor(3)"]
        );
        assert_eq!(found(Some("add.tens"), None, ""), ["add: Tensor(3, 2)"]);
        assert_eq!(found(Some("model.py"), None, ""), ["add: Tensor(3, 2)"]);
        assert_eq!(
            found(Some("nn.linear"), None, ""),
            ["linear: Graph(5)", "linear_1: Graph(5)"]
        );
        assert_eq!(
            found(Some("bias"), None, "linear_0"),
            ["linear.bias: Tensor(3)"]
        );
        assert!(found(Some("nothing"), None, "").is_empty());
    }

    #[test]
    fn finds_by_shape() {
        let all = ["linear.bias: Tensor(3)", "linear_1.bias: Tensor(3)"];
        assert_eq!(found(None, Some("3"), ""), all);
        assert_eq!(
            found(Some("output"), Some("*,3"), "output"),
            ["output|sub_0: Tensor(3, 3)", "output|sub_1: Tensor(3, 3)"]
        );
        assert_eq!(found(Some("linear_1"), Some("...,2"), "").len(), 2);
        assert!(found(None, Some("()"), "").is_empty());
    }

    #[test]
    fn finds_by_pattern_operation_and_module() {
        let mut graph = tuple_output();
        for call in [1, 3] {
            graph.root.children[call].target = "torch.nn.Linear".into();
        }
        graph.root.children[2].target = "aten::add.Tensor".into();
        let found = |query: Query| {
            let hits = graph.search(&NodePath::root(), &query).into_iter();
            hits.map(|hit| hit.path.to_string()).collect::<Vec<_>>()
        };
        let op = |op: &str| {
            found(Query {
                op: Some(op.to_owned()),
                ..Query::default()
            })
        };
        let module = |class: &str| {
            found(Query {
                module: Some(class.to_owned()),
                ..Query::default()
            })
        };
        assert_eq!(op("linear"), ["linear.linear", "linear_1.linear"]);
        assert_eq!(op("aten::add.Tensor"), ["add"]);
        assert_eq!(op("aten::add"), [""; 0]);
        assert_eq!(module("Linear"), ["linear", "linear_1"]);
        assert_eq!(module("torch.nn.Linear").len(), 2);
        assert!(module("near").is_empty());
        let tensors = found(Query {
            pattern: Some("{linear_1.b*,output|*}".parse().unwrap()),
            shape: Some("...".parse().unwrap()),
            ..Query::default()
        });
        assert_eq!(tensors, ["linear_1.bias", "output|sub_0", "output|sub_1"]);
    }

    #[test]
    fn finds_in_containers_whose_lengths_differed() {
        let mut graph = tuple_output();
        let list = |n: usize| Value::List(vec![tensor(&[7]); n]);
        graph.root.children[2].value = Value::Mixed(vec![list(1), list(2), tensor(&[7, 7])]);
        let query = |shape: &str| Query {
            shape: Some(shape.parse().unwrap()),
            ..Query::default()
        };
        let paths = |shape: &str| {
            let hits = graph.search(&NodePath::root(), &query(shape));
            hits.iter()
                .map(|hit| hit.path.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("7"), ["add|sub_0", "add|sub_1"]);
        assert_eq!(paths("7,*"), ["add"]);
    }

    #[test]
    fn patterns() {
        let ranged = [Dim::of(1), Dim { min: 5, max: 128 }, Dim::of(768)];
        for (pattern, fits) in [
            ("1,*,768", true),
            ("*,768", false),
            ("...,768", true),
            ("1,...", true),
            ("1, 7, ...", true),
            ("1,4,*", false),
            ("*,100..200,*", true),
            ("*,200..300,*", false),
            ("...", true),
            ("Tensor(1, 5..128, 768)", true),
            ("*,*,...,*,*", false),
            ("1,...,*,768", true),
            ("()", false),
        ] {
            let parsed: ShapePattern = pattern.parse().unwrap();
            assert_eq!(parsed.fits(&ranged), fits, "{pattern}");
        }
        let scalar: ShapePattern = "()".parse().unwrap();
        assert!(
            matches!(tensor(&[]), Value::Tensor(TensorInfo { shape, .. }) if scalar.fits(&shape))
        );
        for bad in ["", "x", "3,,4", "(3", "-1", "5..4", "...,...", "3;4"] {
            assert!(bad.parse::<ShapePattern>().is_err(), "{bad}");
        }
    }
}
