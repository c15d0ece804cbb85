//! The valid paths nearest to what the user wrote, for messages and reports.

use std::collections::{HashSet, VecDeque};

use super::{Graph, Node, Value};
use crate::path::NodePath;

/// How many near paths a message lists.
const MOST_SHOWN: usize = 5;
/// Paths that are less similar than this are not offered.
const LEAST_ALIKE: f64 = 0.3;
/// The score of a path that continues the bad one; it is higher than any similarity.
const GOES_ON: f64 = 2.0;
/// How many leaves are compared with a bad path; more would make a message slow, not better.
const MOST_COMPARED: usize = 20_000;

/// The valid paths nearest to a bad one, best first, at most five.
pub fn nearest(graphs: &[Graph], path: &NodePath) -> Vec<String> {
    let mut found = ranked(graphs, path, Offer::Leaves);
    found.truncate(MOST_SHOWN);
    found
}

/// What a message may offer.
#[derive(Clone, Copy, PartialEq)]
pub enum Offer {
    /// What a patch may stand at.
    Leaves,
    /// Scopes as well.
    Nodes,
}

/// The line of a message that names the nearest paths, one below the other; empty where nothing is near.
pub fn nearest_line(graphs: &[Graph], path: &NodePath, offer: Offer, indent: &str) -> String {
    let mut found = ranked(graphs, path, offer);
    if found.len() > MOST_SHOWN {
        found.truncate(MOST_SHOWN);
        found.push("...".to_owned());
    }
    if found.is_empty() {
        return String::new();
    }
    format!(
        "\n{indent}nearest: {}",
        found.join(&format!("\n{indent}         "))
    )
}

/// A leaf that a message may offer.
struct Candidate {
    text: String,
    /// How many last names it shares with the bad path.
    last: usize,
    likeness: f64,
}

impl Candidate {
    fn continues(&self) -> bool {
        self.likeness >= GOES_ON
    }
}

/// What there is below the deepest scope of the path that a graph knows. Leaves whose path continues the bad path are taken alone,
/// in the graph's order with outputs first. If there are none, similar leaves are taken: first those that share the last names,
/// then by similarity.
fn ranked(graphs: &[Graph], path: &NodePath, offer: Offer) -> Vec<String> {
    let mut found = candidates(graphs, path, offer);
    if found.iter().any(Candidate::continues) {
        found.retain(Candidate::continues);
    } else {
        found.retain(|candidate| candidate.likeness >= LEAST_ALIKE);
        found.sort_by(|a, b| b.last.cmp(&a.last).then(b.likeness.total_cmp(&a.likeness)));
    }
    let mut seen = HashSet::new();
    found
        .into_iter()
        .map(|candidate| candidate.text)
        .filter(|text| seen.insert(text.clone()))
        .collect()
}

/// What there is below the deepest scope that any graph knows of the path.
fn candidates(graphs: &[Graph], path: &NodePath, offer: Offer) -> Vec<Candidate> {
    let mut deepest = 0;
    let mut candidates = Vec::new();
    let root = path.root.clone();
    for graph in graphs.iter().filter(|graph| path.means(&graph.name)) {
        let path = graph.canonical(path);
        let (scope, depth) = deepest_scope(graph, &path);
        let names = path.names.get(..depth).unwrap_or_default().to_vec();
        let found = below(
            scope,
            NodePath {
                names,
                ..NodePath::default()
            },
            offer,
        );
        if found.is_empty() || (depth < deepest && !candidates.is_empty()) {
            continue;
        }
        if depth > deepest {
            candidates.clear();
        }
        deepest = depth;
        let typed = path.to_string();
        candidates.extend(found.into_iter().map(|leaf| Candidate {
            last: same_last_names(&path, &leaf),
            likeness: likeness(&typed, &leaf.to_string(), depth),
            text: leaf.in_root(root.clone()).to_string(),
        }));
    }
    candidates
}

/// The deepest scope of a graph on the way of a path, and how many names of the path lead there.
fn deepest_scope<'a>(graph: &'a Graph, path: &NodePath) -> (&'a Node, usize) {
    let mut depth = graph
        .walk(&path.names)
        .map_or_else(|(_, depth)| depth, |_| path.names.len());
    loop {
        match path.names.get(..depth).map(|names| graph.walk(names)) {
            Some(Ok(node)) if !node.is_scope() && depth > 0 => depth -= 1,
            Some(Ok(node)) => return (node, depth),
            _ => return (&graph.root, depth),
        }
    }
}

/// How near a leaf is to the path that was typed, of which the first `depth` names are right.
fn likeness(typed: &str, leaf: &str, depth: usize) -> f64 {
    let rest = leaf.strip_prefix(typed);
    if rest.is_some_and(|rest| typed.is_empty() || rest.starts_with(['.', '|'])) {
        return GOES_ON;
    }
    let (typed, leaf) = (behind(typed, depth), behind(leaf, depth));
    let similar = similarity(typed, leaf);
    // The end of a path is near, however much of its beginning was left out.
    let before = leaf.strip_suffix(typed);
    match before.is_some_and(|before| before.ends_with('.')) {
        true => similar.max(LEAST_ALIKE),
        false => similar,
    }
}

/// The text after the first `names` names of a path.
fn behind(path: &str, names: usize) -> &str {
    let end = |(at, _): (usize, &str)| at + 1;
    let start = names
        .checked_sub(1)
        .and_then(|n| path.match_indices('.').nth(n));
    path.get(start.map_or(0, end)..).unwrap_or_default()
}

/// How many names at the ends of two paths are the same: 0, 1, or 2 for more.
fn same_last_names(a: &NodePath, b: &NodePath) -> usize {
    let names = |path: &NodePath| -> Vec<String> {
        path.names
            .iter()
            .chain(&path.dig)
            .rev()
            .take(2)
            .cloned()
            .collect()
    };
    let pairs = names(a).into_iter().zip(names(b));
    pairs.take_while(|(a, b)| a == b).count()
}

/// A score between 0 and 1: half of it is the share of the typed text that both begin with, half is the edit distance.
fn similarity(typed: &str, text: &str) -> f64 {
    let common = typed
        .chars()
        .zip(text.chars())
        .take_while(|(a, b)| a == b)
        .count();
    let prefix = common as f64 / typed.chars().count().max(1) as f64;
    (prefix + strsim::normalized_levenshtein(typed, text)) / 2.0
}

/// The paths of all that may be offered below a scope, level by level, `output` first in each scope.
fn below(scope: &Node, at: NodePath, offer: Offer) -> Vec<NodePath> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([(scope, at)]);
    while let Some((scope, at)) = queue.pop_front() {
        let (outputs, others): (Vec<&Node>, Vec<&Node>) = scope
            .children
            .iter()
            .partition(|node| node.name == "output");
        for node in outputs.into_iter().chain(others) {
            let path = at.child(&node.name);
            if node.is_scope() {
                found.extend((offer == Offer::Nodes).then(|| path.clone()));
                queue.push_back((node, path));
            } else {
                value_leaves(&node.value, path, &mut found);
            }
        }
        if found.len() >= MOST_COMPARED {
            break;
        }
    }
    found
}

fn value_leaves(value: &Value, at: NodePath, found: &mut Vec<NodePath>) {
    if value.is_leaf() {
        found.push(at.clone());
    }
    for (key, element) in value.elements() {
        value_leaves(&element, at.element(key), found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        let graphs = [tuple_output()];
        for (typed, best) in [
            ("liner.output", "linear.output"),
            ("linear_1.wieght", "linear_1.weight"),
            ("linear_2.output", "linear_1.output"),
            ("ad", "add"),
            ("output|sub_9", "output|sub_0"),
            ("linear_0.outpu", "linear.output"),
            ("linear.output.more", "linear.output"),
        ] {
            assert_eq!(
                nearest(&graphs, &typed.parse().unwrap())[0],
                best,
                "{typed}"
            );
        }
    }

    #[test]
    fn graphs_that_know_more_of_the_path_win() {
        let mut other = Graph::new("other");
        other.root.children = (0..30)
            .map(|n| leaf(Kind::Op, &format!("relu_{n}"), tensor(&[1])))
            .collect();
        let graphs = [other, tuple_output()];
        assert_eq!(nearest(&graphs, &"rleu_7".parse().unwrap())[0], "relu_7");
        assert_eq!(nearest(&graphs, &"relu".parse().unwrap()).len(), 5);
        assert!(nearest(&graphs, &"linear.relu_1".parse().unwrap()).is_empty());
    }

    #[test]
    fn the_same_last_names_come_first_and_what_is_unlike_is_left_out() {
        let mut graph = Graph::new("g");
        graph.root.children = ["layer_3", "layer_30"]
            .map(|layer| {
                let inside = ["mlp", "softmax", "sftmax"];
                let leaves = inside.map(|name| leaf(Kind::Op, name, tensor(&[1])));
                Node::new(Kind::Scope, layer).with_children(leaves.into())
            })
            .into();
        let graphs = [graph];
        assert_eq!(
            nearest(&graphs, &"layer_4.softmax".parse().unwrap())[..2],
            ["layer_3.softmax", "layer_30.softmax"]
        );
        assert_eq!(
            nearest_line(
                &graphs,
                &"layer_3.softmaxx".parse().unwrap(),
                Offer::Leaves,
                "  "
            ),
            "\n  nearest: layer_3.softmax\n           layer_3.sftmax"
        );
        let offered = |offer| nearest_line(&graphs, &"layer_33".parse().unwrap(), offer, "");
        assert!(offered(Offer::Nodes).starts_with("\nnearest: layer_3\n         layer_30\n"));
        assert!(offered(Offer::Leaves).starts_with("\nnearest: layer_3"));
        // The end of a path, without its beginning.
        assert_eq!(
            nearest(&graphs, &"softmax".parse().unwrap()),
            ["layer_3.softmax", "layer_30.softmax"]
        );
        assert_eq!(
            nearest_line(&graphs, &"quite.other".parse().unwrap(), Offer::Leaves, ""),
            ""
        );
        assert!(nearest(&[], &"x".parse().unwrap()).is_empty());
    }
}
