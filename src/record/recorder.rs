//! The tree of one run while it grows.

use crate::graph::{Graph, Kind, Node, Value};
use crate::path::Name;

/// Open scopes, outermost first. Nodes are appended in the order in which they are told.
#[derive(Debug)]
pub struct Recorder {
    open: Vec<Node>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// A run whose root is open.
    pub fn new() -> Recorder {
        Recorder {
            open: vec![Node::new(Kind::Scope, Graph::ROOT)],
        }
    }

    /// Says of which class the innermost open scope is.
    pub fn describe(&mut self, class_name: &str, module_path: &str) {
        if let Some(scope) = self.open.last_mut() {
            scope.target = class_name.to_owned();
            scope.module_path = module_path.to_owned();
        }
    }

    /// Opens a scope inside the innermost one.
    pub fn enter(&mut self, name: Name) {
        self.open.push(Node::new(Kind::Scope, name.to_string()));
    }

    /// Closes the innermost scope. The root stays open.
    pub fn leave(&mut self) {
        if self.open.len() > 1
            && let Some(done) = self.open.pop()
        {
            self.append(0, done);
        }
    }

    /// A leaf in the scope `level` scopes above the innermost one.
    pub fn leaf(&mut self, level: usize, kind: Kind, name: Name, value: Value, target: &str) {
        let mut node = Node::new(kind, name.to_string()).with_value(value);
        node.target = target.to_owned();
        self.append(level, node);
    }

    fn append(&mut self, level: usize, node: Node) {
        let place = self.open.len().checked_sub(level + 1);
        if let Some(scope) = place.and_then(|place| self.open.get_mut(place)) {
            scope.children.push(node);
        }
    }

    /// The root, with what an exception left open closed.
    pub fn finish(mut self) -> Node {
        while self.open.len() > 1 {
            self.leave();
        }
        self.open
            .pop()
            .unwrap_or_else(|| Node::new(Kind::Scope, Graph::ROOT))
    }
}
