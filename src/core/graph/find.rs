//! Looking up nodes by path.

use std::borrow::Cow;

use super::{Graph, Kind, Node, Value};
use crate::error::{Error, Result};
use crate::path::NodePath;

impl Graph {
    /// The node of a path, whatever its dig; `linear_0` finds the first call of a module called more than once. None of a path
    /// that means another root.
    pub fn node(&self, path: &NodePath) -> Option<&Node> {
        self.walk(&path.names)
            .ok()
            .filter(|_| path.means(&self.name))
    }

    /// Whether the path names a parameter or a buffer.
    pub fn is_parameter(&self, path: &NodePath) -> bool {
        self.node(path)
            .is_some_and(|node| node.kind == Kind::Parameter)
    }

    /// The value of a path, its dig included. A scope has none, except an operation's.
    pub fn value(&self, path: &NodePath) -> Option<Cow<'_, Value>> {
        self.node(path)
            .and_then(|node| node.result().or(Some(node)))
            .filter(|node| !node.is_scope())
            .and_then(|node| node.value.element(&path.dig))
    }

    /// The path as the graph itself writes it: the alias `linear_0` becomes `linear`.
    ///
    /// Names that the graph does not know stay as they are. The root, which the graph stands for, is left out.
    pub fn canonical(&self, path: &NodePath) -> NodePath {
        let mut canonical = path.without_root();
        let mut scope = Some(&*self.root);
        for name in &mut canonical.names {
            scope = scope.and_then(|scope| child_or_alias(scope, name));
            match scope {
                Some(child) => name.clone_from(&child.name),
                None => break,
            }
        }
        canonical
    }

    /// The paths of a scope's children, or of a container's elements, in order; none of a leaf. None where nothing is there.
    pub fn below(&self, path: &NodePath) -> Option<Vec<NodePath>> {
        let node = self.node(path)?;
        if node.is_scope() && path.dig.is_empty() {
            return Some(self.names(path));
        }
        self.value(path)?;
        Some(self.digs(path))
    }

    /// The number of paths that [`Graph::below`] gives, and the path at `number` among them. For a scope only this one path is
    /// built.
    pub fn nth_below(&self, path: &NodePath, number: usize) -> Option<(usize, Option<NodePath>)> {
        let node = self.node(path)?;
        if node.is_scope() && path.dig.is_empty() {
            let child = node.children.get(number);
            let child = child.map(|child| path.child(&child.name));
            return Some((node.children.len(), child));
        }
        let mut below = self.below(path)?;
        let count = below.len();
        Some((count, (number < count).then(|| below.swap_remove(number))))
    }

    /// The canonical path of what `text` names as seen from `base`, which is canonical itself. Names that follow a container's
    /// name are names of its elements, whether `.` or `|` stands before them.
    ///
    /// # Errors
    ///
    /// [`Error::Parse`], and [`Error::Path`], which says what there is instead.
    pub fn find_below(&self, base: &NodePath, text: &str) -> Result<NodePath> {
        let names: Vec<String> = match text.parse::<NodePath>() {
            Ok(path) if path.root.is_none() => path.names.into_iter().chain(path.dig).collect(),
            // A key may have a colon, a name may not.
            Ok(_) => format!("x|{text}").parse::<NodePath>()?.dig,
            // Keys may hold spaces, names may not.
            Err(why) => match format!("x|{text}").parse::<NodePath>() {
                Ok(path) => path.dig,
                Err(_) => return Err(why),
            },
        };
        let mut at = base.clone();
        for name in &names {
            at = self
                .step(&at, name)
                .ok_or_else(|| self.no_step(&at, name))?;
        }
        Ok(at)
    }

    /// The path one name further.
    fn step(&self, at: &NodePath, name: &str) -> Option<NodePath> {
        let node = self.node(at)?;
        if node.is_scope() && at.dig.is_empty() {
            return child_or_alias(node, name).map(|child| at.child(&child.name));
        }
        let next = at.element(name);
        self.value(&next).map(|_| next)
    }

    fn no_step(&self, at: &NodePath, name: &str) -> Error {
        let place = match at.is_root() {
            true => Graph::ROOT.to_owned(),
            false => at.to_string(),
        };
        let own = |path: &NodePath| path.dig.last().or(path.names.last()).cloned();
        let below = self.below(at).unwrap_or_default();
        let there: Vec<String> = below.iter().filter_map(own).collect();
        let there = match there.is_empty() {
            true => "none".to_owned(),
            false => there.join(", "),
        };
        Error::Path(format!("{place} has no node '{name}'; it has {there}"))
    }

    /// Follows names as far as they go; otherwise the last node found, and how many names led to it.
    pub(super) fn walk(&self, names: &[String]) -> std::result::Result<&Node, (&Node, usize)> {
        let mut node: &Node = &self.root;
        for (i, name) in names.iter().enumerate() {
            node = child_or_alias(node, name).ok_or((node, i))?;
        }
        Ok(node)
    }

    /// The paths of a scope's children.
    pub(super) fn names(&self, scope: &NodePath) -> Vec<NodePath> {
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
    pub(super) fn digs(&self, container: &NodePath) -> Vec<NodePath> {
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

/// A child by its name, or the first of several calls by its name with `_0`.
fn child_or_alias<'a>(scope: &'a Node, name: &str) -> Option<&'a Node> {
    scope.child(name).or_else(|| {
        let base = name.strip_suffix("_0")?;
        let first = scope.child(base).filter(|node| node.is_scope())?;
        is_first_of_several(scope, first).then_some(first)
    })
}

/// Whether a call is the first of several calls of its module in the scope. The later calls need not be named like the first
/// one with a number at the end: the later calls of `layers_0` are `layers_1` and so on, whichever number is free.
fn is_first_of_several(scope: &Node, call: &Node) -> bool {
    let is_call = |node: &&Node| {
        node.is_scope() && node.module_path == call.module_path && node.target == call.target
    };
    let mut calls = scope.children.iter().filter(is_call);
    calls.next().is_some_and(|first| first.name == call.name) && calls.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::samples::{tensor, tuple_output};
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
    fn later_calls_may_have_any_name() {
        let mut graph = tuple_output();
        for (at, name) in [(1, "layers_0"), (3, "layers_3")] {
            graph.root.children[at].name = name.into();
            graph.root.children[at].module_path = "layers.0".into();
        }
        let canonical = |text: &str| graph.canonical(&path(text)).to_string();
        assert_eq!(canonical("layers_0_0.output"), "layers_0.output");
        assert_eq!(canonical("layers_3_0.output"), "layers_3_0.output");
        assert!(super::super::check(&[graph.clone()], &[path("layers_0_0.output")]).is_ok());
    }

    #[test]
    fn finds_from_any_node_on() {
        let graph = tuple_output();
        let find = |base: &str, text: &str| {
            let found = graph.find_below(&path(base), text);
            found.map(|found| found.to_string())
        };
        assert_eq!(find("", "linear_0.output").unwrap(), "linear.output");
        assert_eq!(find("linear_1", "bias").unwrap(), "linear_1.bias");
        assert_eq!(find("linear_1", "").unwrap(), "linear_1");
        for below in ["output|sub_1", "output.sub_1"] {
            assert_eq!(find("", below).unwrap(), "output|sub_1");
        }
        assert_eq!(find("output", "sub_0").unwrap(), "output|sub_0");
        let why = find("linear", "nope").unwrap_err().to_string();
        assert!(
            why.contains("linear has no node 'nope'; it has input, weight"),
            "{why}"
        );
        assert!(find("", "add_0").is_err(), "only a call of a module has it");
        assert!(find("", "output|sub_0.sub_0").is_err());
        assert!(matches!(find("", "a..b"), Err(Error::Parse { .. })));
    }

    #[test]
    fn finds_keys_with_characters_of_their_own() {
        let mut graph = tuple_output();
        let keys = ["a.b", "e f", "line\nbreak"].map(|key| (key.to_owned(), tensor(&[2])));
        graph.root.children[4].value = Value::Dict(keys.to_vec());
        let output = path("output");
        let all = graph.below(&output).unwrap();
        assert_eq!(all.len(), 3);
        for at in [output.clone(), NodePath::root()] {
            let all = graph.below(&at).unwrap();
            for (number, path) in all.iter().enumerate() {
                let found = (all.len(), Some(path.clone()));
                assert_eq!(graph.nth_below(&at, number), Some(found));
            }
            let count = all.len();
            assert_eq!(graph.nth_below(&at, count), Some((count, None)));
        }
        for element in graph.below(&output).unwrap() {
            let found = graph.find_below(&NodePath::root(), &element.to_string());
            assert_eq!(found.unwrap(), element);
        }
        let found = graph.find_below(&output, "e f").unwrap();
        assert_eq!(found.to_string(), "output|e f");
    }

    #[test]
    fn below_a_node() {
        let graph = tuple_output();
        let below = |at: &str| graph.below(&path(at)).map(|found| found.len());
        assert_eq!(below(""), Some(5));
        assert_eq!(below("linear_0"), Some(5));
        assert_eq!(below("output"), Some(2));
        assert_eq!(below("output|sub_1"), Some(0));
        assert_eq!(below("add"), Some(0));
        assert_eq!(below("nothing"), None);
        assert_eq!(below("linear|x"), None);
    }
}
