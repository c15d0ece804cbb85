//! Data flow: a graph's nodes in a row, each with the nodes that its arguments came from.

use std::collections::HashMap;

use graphpatch_core::graph::{Arg, Graph, Kind, Node};
use graphpatch_core::path::NodePath;

/// A graph's nodes, every scope before what is in it.
pub struct Flow<'a> {
    pub nodes: Vec<Placed<'a>>,
}

/// A node, where it is, and what it was made from.
pub struct Placed<'a> {
    pub node: &'a Node,
    pub path: NodePath,
    /// The scope around it; none for the root.
    pub scope: Option<usize>,
    pub uses: Vec<Use>,
}

/// One value that a node was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The node that it came from.
    pub from: usize,
    /// Which element of that node's container, as the path's part after `|`.
    pub dig: String,
    /// Which argument it is: a position, or a keyword.
    pub argument: String,
}

impl<'a> Flow<'a> {
    /// The data flow of a graph. The inputs of a called module come from the scope around it. Values that are not in the graph
    /// are left out.
    pub fn of(graph: &'a Graph) -> Flow<'a> {
        let mut flow = Flow { nodes: Vec::new() };
        flow.place(&graph.root, NodePath::root(), None);
        let mut names: Vec<HashMap<&str, usize>> = vec![HashMap::new(); flow.nodes.len()];
        for (at, placed) in flow.nodes.iter().enumerate() {
            if let Some(scope) = placed.scope {
                names[scope].insert(&placed.node.name, at);
            }
        }
        let mut all = Vec::with_capacity(flow.nodes.len());
        for placed in &flow.nodes {
            let scope = match placed.node.kind {
                Kind::Input => placed.scope.and_then(|scope| flow.nodes[scope].scope),
                _ => placed.scope,
            };
            let mut uses = Vec::new();
            let place = Names {
                names: &names,
                scope,
            };
            // A scope's arguments are shown at the scope's inputs instead.
            for call in placed.node.calls().filter(|call| call.kind != Kind::Scope) {
                for (i, argument) in call.args.iter().enumerate() {
                    place.collect(argument, &i.to_string(), &mut uses);
                }
                for (key, argument) in &call.kwargs {
                    place.collect(argument, key, &mut uses);
                }
            }
            all.push(uses);
        }
        for (placed, uses) in flow.nodes.iter_mut().zip(all) {
            placed.uses = uses;
        }
        flow
    }

    fn place(&mut self, node: &'a Node, path: NodePath, scope: Option<usize>) {
        let at = self.nodes.len();
        self.nodes.push(Placed {
            node,
            path: path.clone(),
            scope,
            uses: Vec::new(),
        });
        for child in &node.children {
            self.place(child, path.child(&child.name), Some(at));
        }
    }

    /// Where a node of this path is.
    pub fn find(&self, path: &NodePath) -> Option<usize> {
        self.nodes
            .iter()
            .position(|placed| placed.path.names == path.names)
    }

    /// The nodes of a scope, in order.
    pub fn children(&self, scope: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |at| self.nodes[*at].scope == Some(scope))
    }

    /// Whether a node is this scope or somewhere in it.
    pub fn is_within(&self, mut at: usize, scope: usize) -> bool {
        while at != scope {
            match self.nodes[at].scope {
                Some(outer) => at = outer,
                None => return false,
            }
        }
        true
    }
}

/// Finds the nodes that one node's arguments name.
struct Names<'a> {
    names: &'a [HashMap<&'a str, usize>],
    scope: Option<usize>,
}

impl Names<'_> {
    fn collect(&self, argument: &Arg, label: &str, uses: &mut Vec<Use>) {
        match argument {
            Arg::Const(_) => {}
            Arg::Node(text) => {
                let (name, dig) = text.split_once('|').unwrap_or((text, ""));
                let from = self.scope.and_then(|scope| self.names[scope].get(name));
                self.push(from, dig, label, uses);
            }
            Arg::Outer(text) => {
                let Ok(path) = text.parse::<NodePath>() else {
                    return;
                };
                let from = path
                    .names
                    .iter()
                    .try_fold(&0, |scope, name| self.names.get(*scope)?.get(name.as_str()));
                let dig = text.split_once('|').map_or("", |(_, dig)| dig);
                self.push(from, dig, label, uses);
            }
            Arg::List(list) | Arg::Tuple(list) => {
                for (i, item) in list.iter().enumerate() {
                    self.collect(item, &format!("{label}[{i}]"), uses);
                }
            }
            Arg::Dict(entries) => {
                for (key, item) in entries {
                    self.collect(item, &format!("{label}[{key:?}]"), uses);
                }
            }
        }
    }

    fn push(&self, from: Option<&usize>, dig: &str, label: &str, uses: &mut Vec<Use>) {
        if let Some(&from) = from {
            let used = Use {
                from,
                dig: dig.to_owned(),
                argument: label.to_owned(),
            };
            // Several recorded variants of the call may use the same value.
            if !uses.contains(&used) {
                uses.push(used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;

    #[test]
    fn arguments_become_edges() {
        let graph = samples::graph();
        let flow = Flow::of(&graph);
        let edges: Vec<String> = flow
            .nodes
            .iter()
            .flat_map(|placed| {
                placed.uses.iter().map(|used| {
                    format!(
                        "{}|{} -> {} as {}",
                        flow.nodes[used.from].path, used.dig, placed.path, used.argument
                    )
                })
            })
            .collect();
        let expected = [
            "x| -> linear.input as 0",
            "linear.input| -> linear.linear as 0",
            "linear.weight| -> linear.linear as 1",
            "linear.linear| -> linear.output as 0",
            "linear| -> split as 0",
            "split|sub_1 -> cat as 0[0]",
            "linear.weight| -> cat as 0[1]",
            "x| -> cat as out",
            "cat| -> output as 0[\"k\"]",
        ];
        assert_eq!(edges, expected);
        let linear = flow.find(&"linear".parse().expect("path")).expect("linear");
        assert_eq!(flow.children(linear).count(), 4);
        assert!(flow.is_within(linear + 1, linear) && !flow.is_within(1, linear));
    }
}
