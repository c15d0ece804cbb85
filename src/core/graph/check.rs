//! Refuses paths that name no leaf. One error lists them all, before anything runs, with the nearest valid paths of each.

use super::inside::ATTENTION_VALUES;
use super::nearest::{Offer, nearest_line};
use super::{Graph, Node, Value};
use crate::error::{Error, Result};
use crate::path::{NodePath, Pattern};

/// Checks that each path names a leaf in at least one of the graphs. One [`Error::Path`] names all that do not.
pub fn check(graphs: &[Graph], paths: &[NodePath]) -> Result<()> {
    let mut bad = Vec::new();
    for path in paths {
        // The reason is that of the graph which has the longest part of the path.
        let meant = || graphs.iter().filter(|graph| path.means(&graph.name));
        if let Some(why) = no_root(graphs, path) {
            bad.push((path, why));
            continue;
        }
        if path.is_pattern() && graphs.iter().all(|graph| graph.value(path).is_none()) {
            let pattern: Pattern = path.to_string().parse()?;
            if super::matching(graphs, &[pattern]).is_err() {
                bad.push((path, "is a pattern that matches no tensor".to_owned()));
            }
            continue;
        }
        let reasons: Option<Vec<Fault>> = meant().map(|graph| graph.fault(path)).collect();
        if let Some(reasons) = reasons {
            let deepest = reasons
                .into_iter()
                .reduce(|a, b| if b.depth > a.depth { b } else { a });
            let nothing = || "nothing was recorded to find it in".to_owned();
            bad.push((path, deepest.map_or_else(nothing, |fault| fault.why)));
        }
    }
    if bad.is_empty() {
        Ok(())
    } else {
        Err(Error::Path(complain("cannot be patched", graphs, &bad)))
    }
}

/// Why the path's root is none of the graphs'; `None` if it is one, or nothing was recorded.
fn no_root(graphs: &[Graph], path: &NodePath) -> Option<String> {
    let root = path.root.as_ref()?;
    if graphs.is_empty() || graphs.iter().any(|graph| path.means(&graph.name)) {
        return None;
    }
    let names: Vec<&str> = graphs.iter().map(|graph| graph.name.as_str()).collect();
    Some(format!(
        "no root is called `{root}`; there is {}",
        names.join(", ")
    ))
}

/// The graphs that the path may mean: those of its root, or all.
///
/// # Errors
///
/// [`Error::Path`] if its root is none of theirs.
pub fn of_root<'a>(graphs: &'a [Graph], path: &NodePath) -> Result<Vec<&'a Graph>> {
    match no_root(graphs, path) {
        Some(why) => Err(Error::Path(complain(
            "cannot be shown",
            graphs,
            &[(path, why)],
        ))),
        None => Ok(graphs
            .iter()
            .filter(|graph| path.means(&graph.name))
            .collect()),
    }
}

/// The roots in which a path without a root names a leaf, if there are several: such a path holds in all of them.
fn shared<'a>(graphs: &'a [Graph], path: &NodePath) -> Vec<&'a str> {
    if path.root.is_some() {
        return Vec::new();
    }
    let having = graphs.iter().filter(|graph| graph.fault(path).is_none());
    let names: Vec<&str> = having.map(|graph| graph.name.as_str()).collect();
    if names.len() < 2 { Vec::new() } else { names }
}

/// The paths, but for those without a root that several roots have: each of these becomes one path for every such root.
pub fn in_each_root(graphs: &[Graph], paths: Vec<NodePath>) -> Vec<NodePath> {
    let each = |path: NodePath| match shared(graphs, &path) {
        roots if roots.is_empty() => vec![path],
        roots => roots
            .into_iter()
            .map(|root| path.in_root(Some(root.to_owned())))
            .collect(),
    };
    paths.into_iter().flat_map(each).collect()
}

/// What to say of a path without a root that several roots have.
pub fn shared_note(graphs: &[Graph], path: &NodePath) -> Option<String> {
    let roots = shared(graphs, path);
    let one = path.in_root(Some((*roots.first()?).to_owned()));
    Some(format!(
        "{path} is in {} roots ({}) and holds in all of them; write {one} for one of them",
        roots.len(),
        roots.join(", ")
    ))
}

/// The message for bad paths, each with its reason and what could have been meant.
pub(super) fn complain(what: &str, graphs: &[Graph], bad: &[(&NodePath, String)]) -> String {
    let mut text = match bad.len() {
        1 => format!("1 path {what}:"),
        n => format!("{n} paths {what}:"),
    };
    for (path, why) in bad {
        let name = if path.is_root() {
            Graph::ROOT.to_owned()
        } else {
            path.to_string()
        };
        text.push_str(&format!("\n  {name}: {why}"));
        text.push_str(&nearest_line(graphs, path, Offer::Leaves, "    "));
    }
    text
}

/// Why a path names no leaf, and how much of it was found.
struct Fault {
    depth: usize,
    why: String,
}

impl Graph {
    /// Why a path names nothing at all in this graph.
    pub(super) fn missing(&self, path: &NodePath) -> String {
        self.fault(path).map_or_else(String::new, |fault| fault.why)
    }

    /// Why a path names no leaf; None if it names one.
    fn fault(&self, path: &NodePath) -> Option<Fault> {
        let node = match self.walk(&path.names) {
            Ok(node) => node,
            Err((node, depth)) => {
                let name = path.names.get(depth).map_or("", String::as_str);
                let last = depth + 1 == path.names.len() && path.dig.is_empty();
                if last && node.is_closed() && ATTENTION_VALUES.contains(&name) {
                    return None; // the patch asks for the operation's inside
                }
                return Some(Fault {
                    depth,
                    why: no_child(node, name),
                });
            }
        };
        let depth = path.names.len();
        if node.is_opened() && path.dig.is_empty() {
            return None; // the operation's result
        }
        if node.is_scope() {
            let why = if path.dig.is_empty() {
                "is a scope, not a value"
            } else {
                "is a scope, which has nodes (`.`) and no elements (`|`)"
            };
            return Some(Fault {
                depth,
                why: why.to_owned(),
            });
        }
        for (i, key) in path.dig.iter().enumerate() {
            let found = |n: usize| node.value.element(path.dig.get(..n).unwrap_or_default());
            if found(i + 1).is_none() {
                let outer = found(i).map_or_else(String::new, |value| no_element(&value, key));
                return Some(Fault {
                    depth: depth + i,
                    why: outer,
                });
            }
        }
        let depth = depth + path.dig.len();
        let value = node.value.element(&path.dig)?;
        (!value.is_leaf()).then(|| Fault {
            depth,
            why: no_leaf(&value),
        })
    }
}

fn no_child(node: &Node, name: &str) -> String {
    if node.is_scope() {
        format!("`{}` has no node `{name}`", node.name)
    } else if node.value.elements().is_empty() {
        format!(
            "`{}` is a {}, not a scope: it has no nodes in it",
            node.name,
            node.value.label()
        )
    } else {
        format!(
            "`{}` is a {}: its elements follow after `|`",
            node.name,
            node.value.label()
        )
    }
}

fn no_element(outer: &Value, key: &str) -> String {
    match outer.elements().is_empty() && outer.is_leaf() {
        true => format!("a {} has no elements", outer.label()),
        false => format!("the {} has no element `{key}`", outer.label()),
    }
}

fn no_leaf(value: &Value) -> String {
    match value {
        Value::Tuple(_) | Value::List(_) | Value::Dict(_) => {
            format!(
                "is a {}, not one value: choose an element after `|`",
                value.label()
            )
        }
        Value::Str | Value::Complex => format!(
            "is a {}, which no patch can keep or change: they act on tensors, numbers and booleans",
            value.label()
        ),
        _ => format!("is a {}, not a tensor or plain value", value.label()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::*;

    fn paths(texts: &[&str]) -> Vec<NodePath> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn message(graphs: &[Graph], texts: &[&str]) -> String {
        match check(graphs, &paths(texts)) {
            Err(Error::Path(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn leaves_are_valid() {
        let graphs = [tuple_output()];
        let good = [
            "x",
            "linear.output",
            "linear_0.weight",
            "output|sub_1",
            "linear_1.linear",
        ];
        check(&graphs, &paths(&good)).unwrap();
        check(&[], &[]).unwrap();
    }

    #[test]
    fn all_bad_paths_are_in_one_error() {
        let text = message(
            &[tuple_output()],
            &[
                "linear",
                "x",
                "output",
                "linear.outptu",
                "output|sub_0.sub_0",
                "",
            ],
        );
        let expected = "\
5 paths cannot be patched:
  linear: is a scope, not a value
    nearest: linear.output
             linear.input
             linear.weight
             linear.bias
             linear.linear
  output: is a tuple(2), not one value: choose an element after `|`
    nearest: output|sub_0
             output|sub_1
";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains(
                "linear.outptu: `linear` has no node `outptu`\n    nearest: linear.output\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("output|sub_0.sub_0: a Tensor(3, 3) has no elements"),
            "{text}"
        );
        assert!(text.contains(
            "<root>: is a scope, not a value\n    nearest: output|sub_0\n             output|sub_1\n             x\n             add\n"
        ));
        assert!(!text.contains("  x:"));
    }

    #[test]
    fn reasons() {
        let mut graph = tuple_output();
        graph.root.children.insert(
            0,
            leaf(Kind::Input, "cache", Value::Other("DynamicCache".into())),
        );
        for (path, why) in [
            ("layer.output", "`<root>` has no node `layer`"),
            (
                "x.output",
                "`x` is a Tensor(3, 2), not a scope: it has no nodes in it",
            ),
            (
                "output.sub_0",
                "`output` is a tuple(2): its elements follow after `|`",
            ),
            ("output|sub_7", "the tuple(2) has no element `sub_7`"),
            ("linear|sub_0", "is a scope, which has nodes"),
            ("cache", "is a DynamicCache, not a tensor or plain value"),
            ("add_0", "`<root>` has no node `add_0`"),
        ] {
            let text = message(&[graph.clone()], &[path]);
            assert!(
                text.starts_with(&format!("1 path cannot be patched:\n  {path}: {why}")),
                "{text}"
            );
        }
        assert_eq!(
            message(&[], &["x"]),
            "1 path cannot be patched:\n  x: nothing was recorded to find it in"
        );
    }

    #[test]
    fn a_pattern_means_at_least_one_tensor() {
        check(&[tuple_output()], &paths(&["*.output", "**.weight"])).unwrap();
        let text = message(&[tuple_output()], &["linear_*.outptu"]);
        assert!(
            text.contains(
                "linear_*.outptu: is a pattern that matches no tensor\n    nearest: linear_1.output"
            ),
            "{text}"
        );
    }

    #[test]
    fn at_most_five_are_shown() {
        let mut graph = Graph::new("g");
        graph.root.children = (0..30)
            .map(|n| leaf(Kind::Op, &format!("add_{n}"), tensor(&[1])))
            .collect();
        let text = message(&[graph.clone()], &["add"]);
        assert!(
            text.ends_with("\n             ...") && text.matches("add_").count() == 5,
            "{text}"
        );
        graph.root.children.truncate(5);
        assert!(!message(&[graph], &["add"]).contains("..."));
    }

    #[test]
    fn any_graph_may_know_the_path() {
        let mut other = Graph::new("other");
        other.root.children = vec![leaf(Kind::Op, "relu", tensor(&[1]))];
        let graphs = [other, tuple_output()];
        check(&graphs, &paths(&["relu", "linear.output"])).unwrap();
        assert!(message(&graphs, &["linear.nothing"]).contains("`linear` has no node `nothing`"));
    }
}
