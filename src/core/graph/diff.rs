//! What differs between two graphs, node by node.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Graph, Node, TensorInfo, Value};
use crate::path::NodePath;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum Difference {
    /// A node, with all that is below it, of one graph only.
    OnlyA {
        path: String,
        a: String,
    },
    OnlyB {
        path: String,
        b: String,
    },
    /// Shape, dtype, device, layout or type of a value.
    Value {
        path: String,
        a: String,
        b: String,
    },
    /// What a node is computed from.
    Code {
        path: String,
        a: String,
        b: String,
    },
}

/// Compares two graphs; with `code`, also what values are computed from.
pub fn diff(a: &Graph, b: &Graph, code: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    scopes(&a.root, &b.root, &NodePath::root(), code, &mut found);
    found
}

fn scopes(a: &Node, b: &Node, at: &NodePath, code: bool, found: &mut Vec<Difference>) {
    let others: FxHashMap<&str, &Node> = b.children.iter().map(|c| (c.name.as_str(), c)).collect();
    let own: FxHashMap<&str, &Node> = a.children.iter().map(|c| (c.name.as_str(), c)).collect();
    for child in &a.children {
        let path = at.child(&child.name);
        match others.get(child.name.as_str()) {
            Some(other) => nodes(child, other, &path, code, found),
            None => found.push(Difference::OnlyA {
                path: path.to_string(),
                a: label(child),
            }),
        }
    }
    for child in &b.children {
        if !own.contains_key(child.name.as_str()) {
            found.push(Difference::OnlyB {
                path: at.child(&child.name).to_string(),
                b: label(child),
            });
        }
    }
}

fn nodes(a: &Node, b: &Node, path: &NodePath, code: bool, found: &mut Vec<Difference>) {
    if a.is_scope() != b.is_scope() || (!a.is_scope() && a.value != b.value) {
        found.push(Difference::Value {
            path: path.to_string(),
            a: label(a),
            b: label(b),
        });
    }
    if code {
        let (line_a, line_b) = (a.line(), b.line());
        if line_a != line_b {
            found.push(Difference::Code {
                path: path.to_string(),
                a: line_a,
                b: line_b,
            });
        }
    }
    if a.is_scope() && b.is_scope() {
        scopes(a, b, path, code, found);
    }
}

fn label(node: &Node) -> String {
    match node.is_scope() {
        true => node.label(),
        false => described(&node.value),
    }
}

/// A value with all that was seen of it.
fn described(value: &Value) -> String {
    let all = |items: &[Value]| items.iter().map(described).collect::<Vec<_>>().join(", ");
    match value {
        Value::Tensor(TensorInfo {
            dtype,
            device,
            layout,
            ..
        }) => {
            let layout = match layout.as_ref() {
                "strided" => String::new(),
                other => format!(" {other}"),
            };
            format!("{} {dtype} {device}{layout}", value.label())
        }
        Value::Tuple(items) => format!("({})", all(items)),
        Value::List(items) => format!("[{}]", all(items)),
        Value::Dict(items) => {
            let entry = |(key, item): &(String, Value)| format!("{key}: {}", described(item));
            let entries: Vec<String> = items.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.label(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{Arg, Kind};
    use super::*;

    #[test]
    fn a_graph_is_equal_to_itself() {
        assert_eq!(diff(&tuple_output(), &tuple_output(), true), []);
    }

    #[test]
    fn differences_are_named_with_their_paths() {
        let (a, mut b) = (tuple_output(), tuple_output());
        let children = &mut b.root.children;
        children[1].children[3].value = tensor(&[3, 4]);
        children[2] = leaf(Kind::Op, "mul", tensor(&[3, 2]));
        children[3].children[0].args = vec![Arg::Node("mul".into())];
        if let Value::Tuple(items) = &mut children[4].value {
            items.pop();
        }
        let found = diff(&a, &b, true);
        let text = |text: &str| text.to_owned();
        let value = "Tensor(3, 3) float32 cpu";
        let expected = [
            Difference::Value {
                path: text("linear.linear"),
                a: text(value),
                b: text("Tensor(3, 4) float32 cpu"),
            },
            Difference::OnlyA {
                path: text("add"),
                a: text("Tensor(3, 2) float32 cpu"),
            },
            Difference::Code {
                path: text("linear_1"),
                a: text("linear_1 = self.linear()"),
                b: text("linear_1 = self.linear(mul)"),
            },
            Difference::Value {
                path: text("output"),
                a: format!("({value}, {value})"),
                b: format!("({value})"),
            },
            Difference::OnlyB {
                path: text("mul"),
                b: text("Tensor(3, 2) float32 cpu"),
            },
        ];
        let shown: Vec<_> = found
            .iter()
            .filter(|d| !matches!(d, Difference::Code { path, .. } if path.ends_with("input")))
            .cloned()
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(diff(&a, &b, false).len(), 4);
    }
}
