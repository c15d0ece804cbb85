//! Looking up nodes by path, and completing what the user has typed.

use std::borrow::Cow;

use super::{Graph, Node, Value};
use crate::path::NodePath;

impl Graph {
    /// The node of a path, whatever its dig; `linear_0` finds the first call of a module called more than once.
    pub fn node(&self, path: &NodePath) -> Option<&Node> {
        self.walk(&path.names).ok()
    }

    /// The value of a path, its dig included. A scope has none.
    pub fn value(&self, path: &NodePath) -> Option<Cow<'_, Value>> {
        self.node(path)
            .filter(|node| !node.is_scope())
            .and_then(|node| node.value.element(&path.dig))
    }

    /// The path as the graph itself writes it: the alias `linear_0` becomes `linear` (SPEC part 2, rule 3).
    ///
    /// Names that the graph does not know stay as they are.
    pub fn canonical(&self, path: &NodePath) -> NodePath {
        let mut canonical = path.clone();
        let mut scope = Some(&self.root);
        for name in &mut canonical.names {
            scope = scope.and_then(|scope| child_or_alias(scope, name));
            match scope {
                Some(child) => name.clone_from(&child.name),
                None => break,
            }
        }
        canonical
    }

    /// Follows names as far as they go; otherwise the last node found, and how many names led to it.
    pub(super) fn walk(&self, names: &[String]) -> Result<&Node, (&Node, usize)> {
        let mut node = &self.root;
        for (i, name) in names.iter().enumerate() {
            node = child_or_alias(node, name).ok_or((node, i))?;
        }
        Ok(node)
    }

    /// What may come next: all paths that complete the last name (or the last key of a dig) of `prefix`.
    ///
    /// A prefix that is itself the only match is gone into: `linear` gives `linear.input` and so on, a container's
    /// path gives its digs.
    pub fn completions(&self, prefix: &str) -> Vec<String> {
        let stops = ['.', '|'];
        let (head, tail) = match NodePath::rfind_unescaped(prefix, &stops) {
            Some(at) => (&prefix[..at], &prefix[at + 1..]),
            None => ("", prefix),
        };
        let digging = NodePath::find_unescaped(prefix, &['|']).is_some();
        let (Ok(head), Some(tail)) = (head.parse::<NodePath>(), unescape(tail)) else {
            return Vec::new();
        };
        let head = self.canonical(&head);
        let next = if digging {
            self.digs(&head)
        } else {
            self.names(&head)
        };
        let last = |path: &NodePath| {
            path.dig
                .last()
                .or(path.names.last())
                .cloned()
                .unwrap_or_default()
        };
        let mut found: Vec<NodePath> = next
            .into_iter()
            .filter(|path| last(path).starts_with(&tail))
            .collect();
        if let [only] = &found[..]
            && last(only) == tail
        {
            let names = if digging {
                Vec::new()
            } else {
                self.names(only)
            };
            let inner = if names.is_empty() {
                self.digs(only)
            } else {
                names
            };
            if !inner.is_empty() {
                found = inner;
            }
        }
        found.iter().map(NodePath::to_string).collect()
    }

    /// The paths of a scope's children.
    fn names(&self, scope: &NodePath) -> Vec<NodePath> {
        match self.node(scope) {
            Some(node) if scope.dig.is_empty() => node
                .children
                .iter()
                .map(|child| scope.child(&child.name))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The paths of a container's elements.
    fn digs(&self, container: &NodePath) -> Vec<NodePath> {
        match self.value(container) {
            Some(value) => value
                .elements()
                .into_iter()
                .map(|(key, _)| container.element(key))
                .collect(),
            None => Vec::new(),
        }
    }
}

/// A name that the user has only begun to type, without its escapes.
fn unescape(tail: &str) -> Option<String> {
    match tail {
        "" => Some(String::new()),
        // Keys may hold spaces, names may not: read it as a key.
        _ => format!("x|{tail}")
            .parse::<NodePath>()
            .ok()
            .and_then(|path| path.dig.into_iter().next()),
    }
}

/// A child by its name, or the first of several calls by its name with `_0`.
fn child_or_alias<'a>(scope: &'a Node, name: &str) -> Option<&'a Node> {
    scope.child(name).or_else(|| {
        let base = name.strip_suffix("_0")?;
        let first = scope.child(base).filter(|node| node.is_scope())?;
        let second = scope
            .child(&format!("{base}_1"))
            .filter(|node| node.is_scope())?;
        (first.module_path == second.module_path).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{Kind, Value};
    use super::*;

    fn path(text: &str) -> NodePath {
        text.parse().unwrap()
    }

    #[test]
    fn finds_nodes_and_values() {
        let graph = tuple_output();
        assert_eq!(graph.node(&path("linear_1.bias")).unwrap().name, "bias");
        assert_eq!(graph.node(&NodePath::root()).unwrap().name, Graph::ROOT);
        assert!(graph.node(&path("linear_2")).is_none());
        assert_eq!(
            graph.value(&path("output|sub_1")).unwrap().label(),
            "Tensor(3, 3)"
        );
        assert!(graph.value(&path("output|sub_2")).is_none());
        assert!(graph.value(&path("linear")).is_none());
    }

    #[test]
    fn the_first_call_has_an_alias() {
        let mut graph = tuple_output();
        assert_eq!(
            graph.canonical(&path("linear_0.output")).to_string(),
            "linear.output"
        );
        assert_eq!(
            graph.canonical(&path("linear_0.what|x")).to_string(),
            "linear.what|x"
        );
        assert_eq!(graph.canonical(&path("add_0")).to_string(), "add_0");
        graph.root.children[3].module_path = "another_attribute".into();
        assert_eq!(
            graph.canonical(&path("linear_0.output")).to_string(),
            "linear_0.output"
        );
        graph.root.children.remove(3);
        assert!(graph.node(&path("linear_0")).is_none());
    }

    #[test]
    fn completes_names_scopes_and_digs() {
        let mut graph = tuple_output();
        assert_eq!(
            graph.completions(""),
            ["x", "linear", "add", "linear_1", "output"]
        );
        assert_eq!(graph.completions("lin"), ["linear", "linear_1"]);
        assert_eq!(graph.completions("linear"), ["linear", "linear_1"]);
        assert_eq!(graph.completions("linear_1.b"), ["linear_1.bias"]);
        assert_eq!(graph.completions("linear_0.b"), ["linear.bias"]);
        assert_eq!(graph.completions("linear_1").len(), 5);
        assert_eq!(
            graph.completions("output"),
            ["output|sub_0", "output|sub_1"]
        );
        assert_eq!(
            graph.completions("output|"),
            ["output|sub_0", "output|sub_1"]
        );
        assert_eq!(graph.completions("output|sub_1"), ["output|sub_1"]);
        assert_eq!(graph.completions("x"), ["x"]);
        for none in ["nothing", "x.", "x|", "..", "a|b|c", "linear|", "\\"] {
            assert!(graph.completions(none).is_empty(), "{none}");
        }
        let dict = Value::Dict(vec![
            ("a.b".into(), Value::List(vec![tensor(&[1])])),
            ("a c".into(), Value::Int),
        ]);
        graph.root.children[4] = leaf(Kind::Output, "output", dict);
        assert_eq!(
            graph.completions("output|a"),
            ["output|a\\.b", "output|a c"]
        );
        assert_eq!(graph.completions("output|a\\.b"), ["output|a\\.b.sub_0"]);
        assert_eq!(graph.completions("output|a\\.b."), ["output|a\\.b.sub_0"]);
    }
}
