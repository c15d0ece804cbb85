//! Merging a further run into a graph, by path.
//!
//! A node that only the new run has is put after the sibling that it followed in that run, and before `output`. A node that
//! only one side has is marked. How a node was called (target, args, frames) stays as the first run had it; the calls of other
//! runs are kept beside it (`call.rs`).

use rustc_hash::FxHashMap;

use super::{Dim, Graph, Kind, Node, TensorInfo, Value};

/// A [`Value::Mixed`] stops growing here: a list that is longer in every run must not fill the graph.
const MOST_KINDS: usize = 8;

impl Graph {
    /// Adds what another graph of the same root has seen.
    pub fn merge(&mut self, other: Graph) {
        // A node that only one side has was missing in the other side's runs. A graph without a finished run shows nothing of
        // that.
        let whole = self.runs > 0 && other.runs > 0;
        self.root.merge(other.root.into(), whole);
        self.runs += other.runs;
    }

    /// Adds what an unfinished run has seen so far.
    pub fn merge_open(&mut self, other: Graph) {
        self.root.merge(other.root.into(), false);
        self.runs += other.runs;
    }
}

impl Node {
    /// Merges a node of the same path. A node that is a scope on one side only keeps the kind that it has here, and a value
    /// notes the scope as `…|Graph`.
    fn merge(&mut self, other: Node, whole: bool) {
        let Some(other) = self.open_with(other) else {
            return;
        };
        self.merge_calls(&other);
        self.in_some_runs |= other.in_some_runs;
        match (self.is_scope(), other.is_scope()) {
            (true, true) => self.merge_children(other.children, whole),
            (false, false) => self.value.merge(other.value),
            (false, true) => self.value.merge(Value::Other("Graph".to_owned())),
            (true, false) => {}
        }
    }

    fn merge_children(&mut self, others: Vec<Node>, whole: bool) {
        if self.children.is_empty() && !whole {
            // The first run of a scope.
            self.children = others;
            return;
        }
        let same = |(a, b): (&Node, &Node)| a.name == b.name;
        if self.children.len() == others.len() && self.children.iter().zip(&others).all(same) {
            // Nearly every run is like the one before it.
            self.children
                .iter_mut()
                .zip(others)
                .for_each(|(child, other)| child.merge(other, whole));
            return;
        }
        let places: FxHashMap<String, usize> = self
            .children
            .iter()
            .enumerate()
            .map(|(i, child)| (child.name.clone(), i))
            .collect();
        let end = match self.children.last() {
            Some(last) if last.kind == Kind::Output => self.children.len() - 1,
            _ => self.children.len(),
        };
        let mut before: Vec<Vec<Node>> = Vec::new();
        before.resize_with(self.children.len() + 1, Vec::new);
        let mut place = 0;
        let mut missing = vec![whole; self.children.len()];
        for mut other in others {
            match places
                .get(&other.name)
                .and_then(|&i| self.children.get_mut(i).map(|child| (i, child)))
            {
                Some((i, child)) => {
                    child.merge(other, whole);
                    missing[i] = false;
                    place = (i + 1).min(end);
                }
                None => {
                    let place = if other.kind == Kind::Output {
                        self.children.len()
                    } else {
                        place
                    };
                    other.in_some_runs |= whole;
                    before[place].push(other);
                }
            }
        }
        for (child, missing) in self.children.iter_mut().zip(missing) {
            child.in_some_runs |= missing;
        }
        let mut known = std::mem::take(&mut self.children).into_iter();
        for new in before {
            self.children.extend(new);
            self.children.extend(known.next());
        }
    }
}

impl Value {
    /// Widens this value so that it covers the other one too.
    pub fn merge(&mut self, other: Value) {
        if let Value::Mixed(kinds) = self {
            return add_kinds(kinds, other);
        }
        if same_kind(self, &other) {
            return self.merge_same(other);
        }
        let mut kinds = vec![std::mem::take(self)];
        add_kinds(&mut kinds, other);
        *self = Value::Mixed(kinds);
    }

    /// Merges a value of which [`same_kind`] holds.
    fn merge_same(&mut self, other: Value) {
        match (self, other) {
            (Value::Tensor(info), Value::Tensor(other)) => info.widen(&other),
            (Value::Tuple(items), Value::Tuple(others))
            | (Value::List(items), Value::List(others)) => {
                items
                    .iter_mut()
                    .zip(others)
                    .for_each(|(item, other)| item.merge(other));
            }
            (Value::Dict(items), Value::Dict(others)) => {
                items
                    .iter_mut()
                    .zip(others)
                    .for_each(|((_, item), (_, other))| item.merge(other));
            }
            _ => {}
        }
    }
}

/// Whether two values differ only inside: same rank, same length, same keys.
fn same_kind(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) => a.shape.len() == b.shape.len(),
        (Value::Tuple(a), Value::Tuple(b)) | (Value::List(a), Value::List(b)) => a.len() == b.len(),
        (Value::Dict(a), Value::Dict(b)) => a
            .iter()
            .map(|(key, _)| key)
            .eq(b.iter().map(|(key, _)| key)),
        (Value::Other(a), Value::Other(b)) => a == b,
        (Value::None | Value::Undefined, Value::None | Value::Undefined) => true,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// Merges a value, or all kinds of a mixed one, into the kinds seen so far.
fn add_kinds(kinds: &mut Vec<Value>, other: Value) {
    let others = match other {
        Value::Mixed(others) => others,
        other => vec![other],
    };
    for other in others {
        if let Some(kind) = kinds.iter_mut().find(|kind| same_kind(kind, &other)) {
            kind.merge_same(other);
        } else if kinds.len() < MOST_KINDS {
            kinds.push(other);
        }
    }
}

impl TensorInfo {
    fn widen(&mut self, other: &TensorInfo) {
        for (dim, other) in self.shape.iter_mut().zip(&other.shape) {
            *dim = Dim {
                min: dim.min.min(other.min),
                max: dim.max.max(other.max),
            };
        }
        for (mine, other) in [
            (&mut self.dtype, &other.dtype),
            (&mut self.device, &other.device),
            (&mut self.layout, &other.layout),
        ] {
            for seen in other.split('|') {
                if !mine.split('|').any(|known| known == seen) {
                    let mine = mine.to_mut();
                    mine.push('|');
                    mine.push_str(seen);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::*;
    use crate::path::NodePath;
    use proptest::prelude::*;

    fn scope(names: &str) -> Graph {
        let mut graph = Graph::new("g");
        graph.runs = 1;
        let kind = |name: &str| {
            if name == "output" {
                Kind::Output
            } else {
                Kind::Op
            }
        };
        graph.root.children = names
            .split_whitespace()
            .map(|n| leaf(kind(n), n, Value::Int))
            .collect();
        graph
    }

    fn merged(first: &str, second: &str) -> String {
        let mut graph = scope(first);
        graph.merge(scope(second));
        graph
            .root
            .children
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn new_nodes_follow_their_sibling() {
        assert_eq!(merged("a b output", "a x y b output"), "a x y b output");
        assert_eq!(merged("a b output", "x a b y output"), "x a b y output");
        assert_eq!(merged("a b", "b output"), "a b output");
        assert_eq!(merged("", "a output"), "a output");
        assert_eq!(merged("a output", "output x"), "a x output");
        assert_eq!(merged("a b c output", "c x a y output"), "a y b c x output");
        assert_eq!(merged("a output", "a b"), "a b output");
    }

    #[test]
    fn shapes_become_ranges() {
        let mut graph = tuple_output();
        let mut other = tuple_output();
        other.root.children[0].value = tensor(&[7, 2]);
        other.root.children[1].children[0].value = tensor(&[1, 2]);
        graph.merge(other);
        assert_eq!(graph.runs, 2);
        assert_eq!(graph.root.children[0].value.label(), "Tensor(3..7, 2)");
        assert_eq!(
            graph.root.children[1].children[0].value.label(),
            "Tensor(1..3, 2)"
        );
    }

    fn label(values: Vec<Value>) -> String {
        let mut values = values.into_iter();
        let mut first = values.next().unwrap();
        values.for_each(|value| first.merge(value));
        first.label()
    }

    #[test]
    fn different_kinds_are_all_shown() {
        let kinds = vec![
            tensor(&[3]),
            Value::Int,
            tensor(&[2, 2]),
            tensor(&[4]),
            Value::Int,
        ];
        assert_eq!(label(kinds), "Tensor(3..4)|int|Tensor(2, 2)");
        assert_eq!(label(vec![Value::None, Value::Undefined]), "NoneType");
        assert_eq!(
            label(vec![Value::Other("A".into()), Value::Other("B".into())]),
            "A|B"
        );
        let lists = (0..20).map(|n| Value::List(vec![Value::Int; n])).collect();
        assert!(label(lists).ends_with("list(6)|list(7)"));
    }

    #[test]
    fn dtypes_and_devices_are_all_shown() {
        let mut info = TensorInfo {
            dtype: "float32".into(),
            device: "cpu".into(),
            ..Default::default()
        };
        for dtype in ["float16", "float32", "float16|int64"] {
            info.widen(&TensorInfo {
                dtype: dtype.into(),
                device: "cpu".into(),
                ..Default::default()
            });
        }
        assert_eq!(
            (&*info.dtype, &*info.device),
            ("float32|float16|int64", "cpu")
        );
    }

    #[test]
    fn a_scope_stays_a_scope() {
        let mut graph = tuple_output();
        let mut other = tuple_output();
        other.root.children[1] = leaf(Kind::Op, "linear", tensor(&[3, 3]));
        let whole = graph.clone();
        graph.merge(other.clone());
        let tree = |graph: &Graph| graph.tree(&NodePath::root()).unwrap();
        assert_eq!(tree(&graph), tree(&whole));
        assert_eq!(
            graph.root.children[1].line(),
            "linear = self.linear() or, in other runs: linear = (...)"
        );
        other.merge(whole);
        assert_eq!(other.root.children[1].value.label(), "Tensor(3, 3)|Graph");
    }

    proptest! {
        #[test]
        fn merging_loses_no_name_and_keeps_the_first_order(
            a in prop::sample::subsequence(vec!["a", "b", "c", "d", "e", "f"], 0..6),
            b in Just(vec!["a", "b", "c", "d", "e", "f"]).prop_shuffle(),
            keep in 0..6usize,
        ) {
            let b = &b[..keep];
            let result = merged(&format!("{} output", a.join(" ")), &format!("{} output", b.join(" ")));
            let names: Vec<&str> = result.split(' ').collect();
            prop_assert_eq!(names.last(), Some(&"output"));
            let mine: Vec<&str> = names.iter().copied().filter(|n| a.contains(n)).collect();
            prop_assert_eq!(&mine, &a);
            prop_assert!(b.iter().all(|n| names.contains(n)));
            prop_assert_eq!(names.len(), 1 + a.len() + b.iter().filter(|n| !a.contains(n)).count());
        }
    }
}
