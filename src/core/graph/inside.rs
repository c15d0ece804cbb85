//! The inside of an operation: values that it computes on the way to its result, shown on request as nodes of a scope.
//!
//! One operation has an inside, attention. Where it is shown, the operation is a scope whose `output` is the operation's
//! result; the scope's own path goes on to mean that result, as it does where the inside is not shown.

use super::{Kind, Node};
use crate::path::{NodePath, family_text};

/// The schema of the operation that has an inside, and its nodes' first name.
pub const ATTENTION: &str = "aten::scaled_dot_product_attention";
const ATTENTION_NAME: &str = "scaled_dot_product_attention";

/// The values inside of it, in their order. `mask` and `masked_scores` are there only where the call has a mask. The numbers in
/// the list are those of the seam.
pub const ATTENTION_VALUES: [&str; 8] = [
    "query",
    "key",
    "value",
    "scores",
    "mask",
    "masked_scores",
    "probabilities",
    "output",
];

/// Whether the path leads inside of an operation. Such a patch asks for the inside of the calls that it means; a pattern like
/// `**.output`, which would only meet it there, does not.
pub fn leads_inside(path: &NodePath) -> bool {
    let operation = path.names.len().checked_sub(2);
    operation
        .and_then(|at| path.names.get(at))
        .is_some_and(|name| family_text(name.trim_end_matches('*')) == ATTENTION_NAME)
}

impl Node {
    /// Whether this is an operation whose inside is shown.
    pub fn is_opened(&self) -> bool {
        self.is_scope() && self.target == ATTENTION
    }

    /// The same for one whose inside is not shown, but could be.
    pub(super) fn is_closed(&self) -> bool {
        self.kind == Kind::Op && self.target == ATTENTION
    }

    /// The node of the result of an operation whose inside is shown.
    pub(super) fn result(&self) -> Option<&Node> {
        self.is_opened().then(|| self.child("output"))?
    }

    /// Brings two recordings of one operation together, in one of which its inside is shown. Returns the other node if that is
    /// not so.
    pub(super) fn open_with(&mut self, mut other: Node) -> Option<Node> {
        if self.is_closed() && other.is_opened() {
            std::mem::swap(self, &mut other);
            self.add_result(other);
        } else if self.is_opened() && other.is_closed() {
            self.add_result(other);
        } else {
            return Some(other);
        }
        None
    }

    /// Adds what was seen of the result where the inside was not shown.
    fn add_result(&mut self, closed: Node) {
        self.in_some_runs |= closed.in_some_runs;
        let mut children = self.children.iter_mut();
        if let Some(output) = children.find(|child| child.kind == Kind::Output) {
            output.value.merge(closed.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor};
    use super::super::{Graph, Value, check};
    use super::*;

    fn operation(kind: Kind, shape: &[i64]) -> Node {
        let mut node = leaf(kind, ATTENTION_NAME, tensor(shape));
        node.target = ATTENTION.to_owned();
        if kind == Kind::Scope {
            node.value = Value::None;
            node.children = vec![
                leaf(Kind::Op, "probabilities", tensor(&[1, 2, 3, 3])),
                leaf(Kind::Output, "output", tensor(shape)),
            ];
        }
        node
    }

    fn graph(kind: Kind) -> Graph {
        let mut graph = Graph::new("Model.forward");
        graph.root.children = vec![operation(kind, &[1, 2, 3, 4])];
        graph.runs = 1;
        graph
    }

    fn fails(kind: Kind, path: &str) -> bool {
        check(&[graph(kind)], &[path.parse().unwrap()]).is_err()
    }

    #[test]
    fn paths_lead_inside() {
        for (path, leads) in [
            ("h_0.attn.scaled_dot_product_attention.probabilities", true),
            ("scaled_dot_product_attention_3.output", true),
            ("**.scaled_dot_product_attention*.scores", true),
            ("scaled_dot_product_attention", false),
            ("**.probabilities", false),
            ("**", false),
        ] {
            assert_eq!(leads_inside(&path.parse().unwrap()), leads, "{path}");
        }
    }

    #[test]
    fn the_operations_own_path_is_valid_in_both_forms() {
        for kind in [Kind::Op, Kind::Scope] {
            for path in ["", ".probabilities", ".output"] {
                assert!(!fails(kind, &format!("{ATTENTION_NAME}{path}")), "{path}");
            }
            assert!(fails(kind, &format!("{ATTENTION_NAME}.softmax")));
            assert!(fails(kind, &format!("{ATTENTION_NAME}.output.x")));
        }
        assert!(!fails(Kind::Op, &format!("{ATTENTION_NAME}.mask")));
        assert!(fails(Kind::Scope, &format!("{ATTENTION_NAME}.mask")));
        for kind in [Kind::Op, Kind::Scope] {
            assert!(!fails(kind, "scaled_dot_product_attention*"));
            assert!(!fails(kind, "scaled_dot_product_attention*.output"));
        }
    }

    #[test]
    fn both_forms_become_one_node() {
        for (first, second) in [(Kind::Op, Kind::Scope), (Kind::Scope, Kind::Op)] {
            let mut graph = graph(first);
            let mut other = Graph::new("Model.forward");
            other.root.children = vec![operation(second, &[1, 2, 5, 4])];
            other.runs = 1;
            graph.merge(other);
            let node = &graph.root.children[0];
            assert!(node.is_opened() && node.children.len() == 2);
            assert_eq!(node.result().unwrap().label(), "Tensor(1, 2, 3..5, 4)");
        }
    }
}
