//! How many nodes of each kind are below a scope.

use std::fmt::Write;

use super::{Kind, Node};

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
