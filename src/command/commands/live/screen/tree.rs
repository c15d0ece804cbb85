//! The lines of the tree: which are folded, and where one with a text stands.

use std::collections::HashSet;

use graphpatch_core::graph::{Graph, Node};

/// Scopes at this depth are folded at first.
const DEEP: usize = 2;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub depth: usize,
    pub name: String,
    pub label: String,
    /// The path that a patch names it by; it begins with the root's name where there are several.
    pub path: String,
    pub is_scope: bool,
}

/// All lines, and what the user has done with them.
#[derive(Default)]
pub struct Tree {
    lines: Vec<Line>,
    /// The paths of scopes whose inside is not shown.
    folded: HashSet<String>,
    /// Scopes that were seen: a new one is folded if it lies deep.
    known: HashSet<String>,
    /// The path of the line that the cursor is at.
    at: String,
}

impl Tree {
    /// Takes over what was recorded.
    pub fn update(&mut self, graphs: &[Graph]) {
        self.lines.clear();
        for graph in graphs {
            let root = match graphs.len() {
                1 => String::new(),
                _ => format!("{}:", graph.name),
            };
            let name = match graphs.len() {
                1 => graph.root.name.clone(),
                _ => graph.name.clone(),
            };
            self.add(&graph.root, name, root.clone(), 0, &root);
        }
        if !self.lines.iter().any(|line| line.path == self.at) {
            self.at = self
                .lines
                .first()
                .map_or_else(String::new, |line| line.path.clone());
        }
    }

    fn add(&mut self, node: &Node, name: String, path: String, depth: usize, root: &str) {
        if node.is_scope() && self.known.insert(path.clone()) && depth >= DEEP {
            self.folded.insert(path.clone());
        }
        self.lines.push(Line {
            depth,
            name,
            label: node.label(),
            path: path.clone(),
            is_scope: node.is_scope(),
        });
        for child in &node.children {
            let below = match path.is_empty() || path == root {
                true => format!("{path}{}", child.name),
                false => format!("{path}.{}", child.name),
            };
            self.add(child, child.name.clone(), below, depth + 1, root);
        }
    }

    pub fn is_folded(&self, line: &Line) -> bool {
        self.folded.contains(&line.path)
    }

    /// The lines that are not inside of a folded scope.
    pub fn shown(&self) -> Vec<&Line> {
        let mut found = Vec::new();
        let mut hidden = None;
        for line in &self.lines {
            if hidden.is_some_and(|depth| line.depth > depth) {
                continue;
            }
            hidden = self.is_folded(line).then_some(line.depth);
            found.push(line);
        }
        found
    }

    /// Which of the shown lines the cursor is at.
    pub fn cursor(&self) -> usize {
        let shown = self.shown();
        let at = shown.iter().position(|line| line.path == self.at);
        at.unwrap_or_default()
    }

    /// The line that the cursor is at.
    pub fn current(&self) -> Option<&Line> {
        self.shown().get(self.cursor()).copied()
    }

    /// Moves the cursor by so many lines.
    pub fn go(&mut self, by: isize) {
        let shown = self.shown();
        let to = self.cursor().saturating_add_signed(by);
        if let Some(line) = shown.get(to.min(shown.len().saturating_sub(1))) {
            self.at = line.path.clone();
        }
    }

    /// Folds or unfolds the scope at the cursor.
    pub fn fold(&mut self) {
        let Some(line) = self.current().filter(|line| line.is_scope) else {
            return;
        };
        let path = line.path.clone();
        if !self.folded.remove(&path) {
            self.folded.insert(path);
        }
    }

    /// Goes to the next line whose path contains the text, or to the one before. False if there is none.
    pub fn search(&mut self, text: &str, back: bool) -> bool {
        let here = self.lines.iter().position(|line| line.path == self.at);
        let count = self.lines.len();
        let begin = here.unwrap_or_default();
        let found = (1..=count)
            .map(|step| match back {
                true => (begin + count - step) % count,
                false => (begin + step) % count,
            })
            .find(|at| self.lines[*at].path.contains(text));
        let Some(at) = found else {
            return false;
        };
        // What it lies in is unfolded.
        let mut depth = self.lines[at].depth;
        for line in self.lines[..at].iter().rev() {
            if line.depth < depth {
                depth = line.depth;
                self.folded.remove(&line.path);
            }
        }
        self.at = self.lines[at].path.clone();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::graph::Kind;

    fn graph(name: &str) -> Graph {
        let op = |name: &str| Node::new(Kind::Op, name);
        let scope = |name: &str, inside| Node::new(Kind::Scope, name).with_children(inside);
        let deep = scope("b", vec![scope("c", vec![op("add")])]);
        let mut graph = Graph::new(name);
        graph.root.children = vec![op("x"), scope("a", vec![op("mul"), deep])];
        graph
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.shown().iter().map(|line| line.path.clone()).collect()
    }

    #[test]
    fn deep_scopes_are_folded_and_searching_unfolds_them() {
        let mut tree = Tree::default();
        tree.update(&[graph("M.forward")]);
        assert_eq!(paths(&tree), ["", "x", "a", "a.mul", "a.b"]);
        assert!(tree.search("add", false));
        assert_eq!(
            tree.current().map(|line| line.path.as_str()),
            Some("a.b.c.add")
        );
        assert!(paths(&tree).contains(&"a.b.c.add".to_owned()));
        assert!(tree.search("mul", true) && !tree.search("absent", false));
        tree.go(-1);
        tree.fold();
        assert_eq!(paths(&tree), ["", "x", "a"]);
        tree.update(&[graph("M.forward")]);
        assert_eq!(paths(&tree), ["", "x", "a"], "it stays as the user has it");
        tree.go(isize::MAX);
        assert_eq!(tree.cursor(), 2);
    }

    #[test]
    fn several_roots_are_named() {
        let mut tree = Tree::default();
        assert!(tree.current().is_none() && !tree.search("x", false));
        tree.update(&[graph("A.forward"), graph("B.forward")]);
        let all = paths(&tree);
        assert_eq!(&all[..2], ["A.forward:", "A.forward:x"]);
        assert!(all.contains(&"B.forward:a.mul".to_owned()));
    }
}
