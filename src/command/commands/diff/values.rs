//! What differs between the values of two runs, by the keys that `graphpatch run --save` gives them.

use std::collections::HashMap;
use std::fmt::Write;

use graphpatch_core::graph::{Graph, Query};
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::{Distance, HostTensor};
use serde::Serialize;

use crate::terminal::{LEFT, PATH, RIGHT, styled};

/// One key of the files of values.
#[derive(Clone, Serialize)]
pub struct ValueReport {
    pub key: String,
    #[serde(flatten)]
    pub how: How,
    /// Of the first one, where that is asked for: what the node is computed from, with the source lines that called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

#[derive(Clone, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum How {
    OnlyA {
        a: String,
    },
    OnlyB {
        b: String,
    },
    Kind {
        a: String,
        b: String,
    },
    Distance(Distance),
    /// The values differ, and are of a dtype whose elements are not read as numbers.
    Bytes {
        dtype: &'static str,
    },
}

impl ValueReport {
    /// Whether both runs have a value there.
    pub fn is_of_both(&self) -> bool {
        !matches!(self.how, How::OnlyA { .. } | How::OnlyB { .. })
    }

    /// Writes the line that tells of it, without the code.
    pub fn write(&self, text: &mut String, color: bool) {
        let (left, right) = (
            |t: &str| styled(t, LEFT, color),
            |t: &str| styled(t, RIGHT, color),
        );
        let (key, path) = (&self.key, styled(&self.key, PATH, color));
        // Writing to a String does not fail.
        let _ = match &self.how {
            How::OnlyA { a } => writeln!(text, "{}", left(&format!("- {key}: {a}"))),
            How::OnlyB { b } => writeln!(text, "{}", right(&format!("+ {key}: {b}"))),
            How::Kind { a, b } => writeln!(text, "~ {path}: {} → {}", left(a), right(b)),
            How::Bytes { dtype } => writeln!(text, "~ {path}: different {dtype} elements"),
            How::Distance(d) => {
                let first: Vec<String> = d.first.iter().flatten().map(i64::to_string).collect();
                writeln!(
                    text,
                    "~ {path}: {} different, max abs {:e}, max rel {:e}, norm {:e}, first at [{}]",
                    d.count,
                    d.max_abs,
                    d.max_rel,
                    d.norm,
                    first.join(", ")
                )
            }
        };
    }
}

/// The node of a saved value: its key without what tells several values of one node or of several processes apart.
pub fn node_of(key: &str) -> Option<NodePath> {
    let end = NodePath::find_unescaped(key, &['#', '~', '@']).unwrap_or(key.len());
    key[..end].parse().ok()
}

/// The graph that a path means, and its number.
pub fn graph_of<'a>(graphs: &'a [Graph], path: &NodePath) -> Option<(usize, &'a Graph)> {
    graphs
        .iter()
        .enumerate()
        .find(|(_, graph)| path.means(&graph.name) && graph.node(&path.without_root()).is_some())
}

/// The reports in the order in which the values' nodes were computed; at the end those of unknown nodes.
pub fn in_order(mut reports: Vec<ValueReport>, graphs: &[Graph]) -> Vec<ValueReport> {
    let mut places = HashMap::new();
    for (number, graph) in graphs.iter().enumerate() {
        let nodes = graph.search(&NodePath::root(), &Query::default());
        for (place, hit) in nodes.into_iter().enumerate() {
            places.insert((number, hit.path), place);
        }
    }
    let place = |report: &ValueReport| {
        let path = node_of(&report.key)?;
        let (number, _) = graph_of(graphs, &path)?;
        let whole = NodePath {
            dig: Vec::new(),
            ..path.without_root()
        };
        Some((number, *places.get(&(number, whole))?))
    };
    reports.sort_by_cached_key(|report| place(report).unwrap_or((usize::MAX, usize::MAX)));
    reports
}

/// What the node of a value is computed from, with the source lines that called it.
pub fn code_of(key: &str, graphs: &[Graph]) -> Option<String> {
    let path = node_of(key)?;
    let (_, graph) = graph_of(graphs, &path)?;
    graph.code(&path.without_root()).ok()
}

/// The first value that both files have and that differs, with the code of its node.
pub fn first(reports: Vec<ValueReport>, graphs: &[Graph]) -> Option<ValueReport> {
    let mut found = reports.into_iter().find(ValueReport::is_of_both)?;
    found.code = code_of(&found.key, graphs);
    Some(found)
}

/// Whether values of different dtypes are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dtypes {
    /// They differ.
    Differ,
    /// By their numbers.
    Compare,
}

/// The values that differ, and those that only one side has.
pub fn compare(
    a: &[(String, HostTensor)],
    b: &[(String, HostTensor)],
    tolerance: f64,
    dtypes: Dtypes,
) -> Vec<ValueReport> {
    let (ours, theirs) = (by_key(a), by_key(b));
    let mut reports = Vec::new();
    let mut report = |key: &str, how| {
        reports.push(ValueReport {
            key: key.to_owned(),
            how,
            code: None,
        });
    };
    for (key, own) in a {
        let how = match theirs.get(key.as_str()) {
            None => Some(How::OnlyA { a: kind(own) }),
            Some(other) => how(own, other, tolerance, dtypes),
        };
        how.into_iter().for_each(|how| report(key, how));
    }
    for (key, other) in b {
        if !ours.contains_key(key.as_str()) {
            report(key, How::OnlyB { b: kind(other) });
        }
    }
    reports
}

fn by_key(side: &[(String, HostTensor)]) -> HashMap<&str, &HostTensor> {
    let pairs = side.iter().map(|(key, value)| (key.as_str(), value));
    pairs.collect()
}

/// How two values of one node differ, if they do.
fn how(own: &HostTensor, other: &HostTensor, tolerance: f64, dtypes: Dtypes) -> Option<How> {
    let unlike = dtypes == Dtypes::Differ && own.dtype() != other.dtype();
    if own.shape() != other.shape() || unlike {
        return Some(How::Kind {
            a: kind(own),
            b: kind(other),
        });
    }
    match own.distance(other, tolerance) {
        Some(distance) if distance.count > 0 => Some(How::Distance(distance)),
        None if own.bytes() != other.bytes() => Some(How::Bytes {
            dtype: own.dtype().name(),
        }),
        _ => None,
    }
}

fn kind(tensor: &HostTensor) -> String {
    let sizes: Vec<String> = tensor.shape().iter().map(i64::to_string).collect();
    format!("Tensor({}) {}", sizes.join(", "), tensor.dtype().name())
}
