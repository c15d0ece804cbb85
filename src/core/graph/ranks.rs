//! The graphs of a program's ranks as one: equal nodes once, what differs with its rank, and a value that lies on several ranks
//! with its global shape and its placement.

use rustc_hash::FxHashMap;

use super::{Dim, Graph, Node, TensorInfo, Value};

/// How the adapter begins the layout of a plain tensor that is a rank's part of a DTensor; the global shape and the placement
/// follow (`src/torch/adapter/distributed.cpp`).
const PART: &str = "part of a DTensor (";

/// What one rank has recorded.
pub struct RankGraphs {
    pub rank: String,
    pub graphs: Vec<Graph>,
}

/// What the ranks' values of a node are, by the node's path.
type Seen = FxHashMap<String, Vec<(usize, Value)>>;

/// One graph for each root, whose nodes are those of all ranks. Where ranks differ in a tensor's shape, or only some of them have
/// a node, its layout says which rank has what: `strided; rank 0: (3, 8), rank 1: (5, 8)`.
pub fn merge_ranks(ranks: Vec<RankGraphs>) -> Vec<Graph> {
    let names: Vec<String> = ranks.iter().map(|rank| rank.rank.clone()).collect();
    let mut merged: Vec<Graph> = Vec::new();
    let mut seen: FxHashMap<String, (Vec<usize>, Seen)> = FxHashMap::default();
    for (number, rank) in ranks.into_iter().enumerate() {
        for mut graph in rank.graphs {
            each_leaf(&mut graph.root, "", &mut |_, value| make_whole(value));
            let (has_root, values) = seen.entry(graph.name.clone()).or_default();
            has_root.push(number);
            each_leaf(&mut graph.root, "", &mut |path, value| {
                values
                    .entry(path.to_owned())
                    .or_default()
                    .push((number, value.clone()));
            });
            match merged.iter_mut().find(|known| known.name == graph.name) {
                Some(known) => known.merge(graph),
                None => merged.push(graph),
            }
        }
    }
    for graph in &mut merged {
        let Some((has_root, values)) = seen.get(&graph.name) else {
            continue;
        };
        each_leaf(&mut graph.root, "", &mut |path, value| {
            if let Some(of_ranks) = values.get(path) {
                let of_ranks: Vec<_> = of_ranks
                    .iter()
                    .map(|(rank, value)| (*rank, value))
                    .collect();
                note_ranks(value, &of_ranks, has_root.len(), &names);
            }
        });
    }
    merged
}

fn each_leaf(node: &mut Node, path: &str, visit: &mut impl FnMut(&str, &mut Value)) {
    for child in &mut node.children {
        let path = format!("{path}.{}", child.name);
        if child.is_scope() {
            each_leaf(child, &path, visit);
        } else {
            visit(&path, &mut child.value);
        }
    }
}

/// Gives parts of DTensors the shape of the whole.
fn make_whole(value: &mut Value) {
    match value {
        Value::Tensor(info) => {
            if let Some((shape, placement)) = whole(info) {
                info.shape = shape;
                info.layout = placement.into();
            }
        }
        Value::Tuple(values) | Value::List(values) | Value::Mixed(values) => {
            values.iter_mut().for_each(make_whole);
        }
        Value::Dict(values) => values.iter_mut().for_each(|(_, value)| make_whole(value)),
        _ => {}
    }
}

/// The global shape and the placement that a part's layout tells.
fn whole(info: &TensorInfo) -> Option<(Vec<Dim>, String)> {
    let (sizes, placement) = info.layout.strip_prefix(PART)?.split_once(')')?;
    let sizes = sizes.split(", ").filter(|size| !size.is_empty());
    let shape: Option<Vec<Dim>> = sizes
        .map(|size| Some(Dim::of(size.parse().ok()?)))
        .collect();
    Some((shape?, format!("DTensor{placement}, in parts")))
}

/// Notes in a merged value what differs between the ranks.
fn note_ranks(value: &mut Value, of_ranks: &[(usize, &Value)], all: usize, names: &[String]) {
    let elements = |at: usize| -> Vec<(usize, &Value)> {
        let found = of_ranks.iter();
        found
            .filter_map(|(rank, value)| Some((*rank, element(value, at)?)))
            .collect()
    };
    match value {
        Value::Tensor(info) => note_shapes(info, of_ranks, all, names),
        Value::Tuple(values) | Value::List(values) => {
            for (at, value) in values.iter_mut().enumerate() {
                note_ranks(value, &elements(at), all, names);
            }
        }
        Value::Dict(values) => {
            for (at, (_, value)) in values.iter_mut().enumerate() {
                note_ranks(value, &elements(at), all, names);
            }
        }
        Value::Mixed(kinds) => {
            for kind in kinds {
                if let Value::Tensor(info) = kind {
                    note_shapes(info, of_ranks, all, names);
                }
            }
        }
        _ => {}
    }
}

fn element(value: &Value, at: usize) -> Option<&Value> {
    match value {
        Value::Tuple(values) | Value::List(values) => values.get(at),
        Value::Dict(values) => values.get(at).map(|(_, value)| value),
        _ => None,
    }
}

fn note_shapes(info: &mut TensorInfo, of_ranks: &[(usize, &Value)], all: usize, names: &[String]) {
    let shapes: Vec<(usize, &[Dim])> = of_ranks
        .iter()
        .filter_map(|(rank, value)| match value {
            Value::Tensor(own) if own.shape.len() == info.shape.len() => {
                Some((*rank, own.shape.as_slice()))
            }
            _ => None,
        })
        .collect();
    let differ = shapes.windows(2).any(|pair| pair[0].1 != pair[1].1);
    if !differ && shapes.len() == all {
        return;
    }
    let parts: Vec<String> = shapes
        .iter()
        .map(|(rank, shape)| {
            let sizes: Vec<String> = shape.iter().map(Dim::to_string).collect();
            format!("rank {}: ({})", names[*rank], sizes.join(", "))
        })
        .collect();
    let only = if shapes.len() == all { "" } else { "only " };
    info.layout = format!("{}; {only}{}", info.layout, parts.join(", ")).into();
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{GraphFile, Kind};
    use super::*;

    fn rank(rank: usize, graph: Graph) -> RankGraphs {
        RankGraphs {
            rank: rank.to_string(),
            graphs: vec![graph],
        }
    }

    fn layout(graph: &Graph, path: &str) -> String {
        match graph.value(&path.parse().unwrap()).unwrap().into_owned() {
            Value::Tensor(info) => {
                format!("{} {}", Value::Tensor(info.clone()).label(), info.layout)
            }
            other => other.label(),
        }
    }

    #[test]
    fn equal_ranks_are_one_graph() {
        let merged = merge_ranks(vec![rank(0, tuple_output()), rank(1, tuple_output())]);
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].root, tuple_output().root);
    }

    #[test]
    fn what_differs_is_told_with_its_rank() {
        let mut other = tuple_output();
        other.root.children[0].value = tensor(&[7, 2]);
        other.root.children[4].value = Value::Tuple(vec![tensor(&[3, 3]), tensor(&[9, 3])]);
        other
            .root
            .children
            .insert(1, leaf(Kind::Op, "mul", tensor(&[7, 2])));
        let merged = merge_ranks(vec![rank(0, tuple_output()), rank(3, other)]);
        let told = |path| layout(&merged[0], path);
        assert_eq!(
            told("x"),
            "Tensor(3..7, 2) strided; rank 0: (3, 2), rank 3: (7, 2)"
        );
        assert_eq!(told("mul"), "Tensor(7, 2) strided; only rank 3: (7, 2)");
        assert_eq!(told("add"), "Tensor(3, 2) strided");
        assert_eq!(told("output|sub_0"), "Tensor(3, 3) strided");
        assert_eq!(
            told("output|sub_1"),
            "Tensor(3..9, 3) strided; rank 0: (3, 3), rank 3: (9, 3)"
        );
        let file = GraphFile::new(merged);
        let bytes = serde_json::to_vec(&file).unwrap();
        assert_eq!(
            GraphFile::read(&bytes, std::path::Path::new("g")).unwrap(),
            file
        );
    }

    #[test]
    fn parts_have_the_global_shape() {
        let part = |size| {
            let mut graph = tuple_output();
            let mut value = tensor(&[3, size]);
            if let Value::Tensor(info) = &mut value {
                info.layout = "part of a DTensor (3, 7)[Shard(1) of 2]".into();
            }
            graph.root.children[0].value = value;
            graph
        };
        let merged = merge_ranks(vec![rank(0, part(4)), rank(1, part(3))]);
        assert_eq!(
            layout(&merged[0], "x"),
            "Tensor(3, 7) DTensor[Shard(1) of 2], in parts"
        );
    }

    #[test]
    fn a_root_of_one_rank_is_kept() {
        let mut other = tuple_output();
        other.name = "Other.forward".to_owned();
        let merged = merge_ranks(vec![rank(0, tuple_output()), rank(1, other)]);
        assert_eq!(merged.len(), 2);
        assert_eq!(layout(&merged[1], "x"), "Tensor(3, 2) strided");
    }
}
