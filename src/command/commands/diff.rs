//! `graphpatch diff`: what differs between two saved graphs, and between the values that were saved with them.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use graphpatch_core::graph::{self, Difference, Graph, GraphFile, Query};
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::{Distance, HostTensor, safetensors};
use serde::Serialize;

use crate::commands::show::json;
use crate::terminal::{Color, LEFT, PATH, RIGHT, styled};
use crate::voice::{Stop, print};

/// What differs between two saved graphs (exit code 0: nothing, 1: something, 2: an error)
#[derive(Args)]
pub struct Diff {
    /// Graphs saved by `graphpatch run --graph`
    a: PathBuf,
    b: PathBuf,
    /// Also what nodes are computed from
    #[arg(long)]
    code: bool,
    /// Also the values of two files that `graphpatch run --save` wrote, one with each graph
    #[arg(long, num_args = 2, value_names = ["A.safetensors", "B.safetensors"])]
    values: Option<Vec<PathBuf>>,
    /// Elements are equal if their distance is not more than this, absolutely or relative to the larger one
    #[arg(long, default_value_t = 0.0, value_name = "T", requires = "values")]
    tolerance: f64,
    /// Of the values that both have, only the first that differs, in the order of A's nodes, and the line that computes it
    #[arg(long, requires = "values")]
    first: bool,
    /// As JSON; an infinite distance, as from NaN to a number, is the text "inf" there
    #[arg(long)]
    json: bool,
    /// When to color
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

/// All that differs.
#[derive(Default, Serialize)]
struct Report {
    graphs: Vec<GraphReport>,
    values: Vec<ValueReport>,
}

/// One root that both files know, or only one of them.
#[derive(Serialize)]
struct GraphReport {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<&'static str>,
    differences: Vec<Difference>,
}

/// One key of the files of values.
#[derive(Serialize)]
struct ValueReport {
    key: String,
    #[serde(flatten)]
    how: How,
    /// With `--first`: what the node is computed from, with the source lines that called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
enum How {
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

impl Diff {
    pub fn run(self) -> Result<u8, Stop> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Stop::usage("--tolerance: expected a number of at least 0"));
        }
        let graphs = (GraphFile::load(&self.a)?, GraphFile::load(&self.b)?);
        let mut report = Report {
            graphs: self.graphs(&graphs.0.graphs, &graphs.1.graphs),
            values: Vec::new(),
        };
        if let Some([a, b]) = self.values.as_deref() {
            let (kept, other) = (safetensors::read_all(a)?, safetensors::read_all(b)?);
            report.values = in_order(values(&kept, &other, self.tolerance), &graphs.0.graphs);
            if self.first {
                report.values = first(report.values, &graphs.0.graphs);
            }
        }
        let different = !report.graphs.is_empty() || !report.values.is_empty();
        print(&match self.json {
            true => json(&report)?,
            false => self.text(&report),
        })?;
        Ok(different.into())
    }

    /// Roots are compared by name; where each file has only one, whatever their names are.
    fn graphs(&self, a: &[Graph], b: &[Graph]) -> Vec<GraphReport> {
        let mut reports = Vec::new();
        let mut compare = |a: &Graph, b: &Graph| {
            let differences = graph::diff(a, b, self.code);
            if !differences.is_empty() {
                reports.push(GraphReport {
                    name: a.name.clone(),
                    only: None,
                    differences,
                });
            }
        };
        if let ([a], [b]) = (a, b) {
            compare(a, b);
            return reports;
        }
        for own in a {
            if let Some(other) = b.iter().find(|other| other.name == own.name) {
                compare(own, other);
            }
        }
        for (these, others, only) in [(a, b, "a"), (b, a, "b")] {
            for graph in these {
                if !others.iter().any(|other| other.name == graph.name) {
                    reports.push(GraphReport {
                        name: graph.name.clone(),
                        only: Some(only),
                        differences: Vec::new(),
                    });
                }
            }
        }
        reports
    }

    fn text(&self, report: &Report) -> String {
        let color = self.color.is_on();
        let (left, right) = (
            |t: &str| styled(t, LEFT, color),
            |t: &str| styled(t, RIGHT, color),
        );
        let path = |t: &str| styled(t, PATH, color);
        let mut text = String::new();
        // Writing to a String does not fail.
        for graph in &report.graphs {
            let _ = match graph.only {
                Some("a") => writeln!(text, "{}", left(&format!("- # {}", graph.name))),
                Some(_) => writeln!(text, "{}", right(&format!("+ # {}", graph.name))),
                None => writeln!(text, "# {}", graph.name),
            };
            for difference in &graph.differences {
                let _ = match difference {
                    Difference::OnlyA { path, a } => {
                        writeln!(text, "{}", left(&format!("- {path}: {a}")))
                    }
                    Difference::OnlyB { path, b } => {
                        writeln!(text, "{}", right(&format!("+ {path}: {b}")))
                    }
                    Difference::Value { path: p, a, b } | Difference::Code { path: p, a, b } => {
                        writeln!(text, "~ {}: {} → {}", path(p), left(a), right(b))
                    }
                };
            }
        }
        if !report.values.is_empty() {
            text.push_str("# values\n");
        }
        for value in &report.values {
            let key = &value.key;
            let _ = match &value.how {
                How::OnlyA { a } => writeln!(text, "{}", left(&format!("- {key}: {a}"))),
                How::OnlyB { b } => writeln!(text, "{}", right(&format!("+ {key}: {b}"))),
                How::Kind { a, b } => writeln!(text, "~ {}: {} → {}", path(key), left(a), right(b)),
                How::Bytes { dtype } => {
                    writeln!(text, "~ {}: different {dtype} elements", path(key))
                }
                How::Distance(d) => {
                    let first: Vec<String> = d.first.iter().flatten().map(i64::to_string).collect();
                    writeln!(
                        text,
                        "~ {}: {} different, max abs {:e}, max rel {:e}, norm {:e}, first at [{}]",
                        path(key),
                        d.count,
                        d.max_abs,
                        d.max_rel,
                        d.norm,
                        first.join(", ")
                    )
                }
            };
            for line in value.code.iter().flat_map(|code| code.lines()) {
                let _ = writeln!(text, "    {line}");
            }
        }
        text
    }
}

/// The node of a saved value: its key without what tells several values of one node or of several processes apart.
fn node_of(key: &str) -> Option<NodePath> {
    let end = NodePath::find_unescaped(key, &['#', '~', '@']).unwrap_or(key.len());
    key[..end].parse().ok()
}

/// The graph that a path means, and its number.
fn graph_of<'a>(graphs: &'a [Graph], path: &NodePath) -> Option<(usize, &'a Graph)> {
    graphs
        .iter()
        .enumerate()
        .find(|(_, graph)| path.means(&graph.name) && graph.node(&path.without_root()).is_some())
}

/// The reports in the order in which the values' nodes were computed; at the end those of unknown nodes.
fn in_order(mut reports: Vec<ValueReport>, graphs: &[Graph]) -> Vec<ValueReport> {
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

/// The first value that both files have and that differs, with the code of its node.
fn first(reports: Vec<ValueReport>, graphs: &[Graph]) -> Vec<ValueReport> {
    let both = |report: &ValueReport| !matches!(report.how, How::OnlyA { .. } | How::OnlyB { .. });
    let mut found = reports.into_iter().find(both);
    if let Some(report) = &mut found {
        report.code = node_of(&report.key).and_then(|path| {
            let (_, graph) = graph_of(graphs, &path)?;
            graph.code(&path.without_root()).ok()
        });
    }
    found.into_iter().collect()
}

fn values(
    a: &[(String, HostTensor)],
    b: &[(String, HostTensor)],
    tolerance: f64,
) -> Vec<ValueReport> {
    let mut reports = Vec::new();
    let mut report = |key: &str, how| {
        let key = key.to_owned();
        reports.push(ValueReport {
            key,
            how,
            code: None,
        });
    };
    for (key, own) in a {
        match b.iter().find(|other| other.0 == *key) {
            None => report(key, How::OnlyA { a: kind(own) }),
            Some((_, other)) if own.shape() != other.shape() || own.dtype() != other.dtype() => {
                report(
                    key,
                    How::Kind {
                        a: kind(own),
                        b: kind(other),
                    },
                );
            }
            Some((_, other)) => match own.distance(other, tolerance) {
                Some(distance) if distance.count > 0 => report(key, How::Distance(distance)),
                None if own.bytes() != other.bytes() => report(
                    key,
                    How::Bytes {
                        dtype: own.dtype().name(),
                    },
                ),
                _ => {}
            },
        }
    }
    for (key, other) in b {
        if !a.iter().any(|own| own.0 == *key) {
            report(key, How::OnlyB { b: kind(other) });
        }
    }
    reports
}

fn kind(tensor: &HostTensor) -> String {
    let sizes: Vec<String> = tensor.shape().iter().map(i64::to_string).collect();
    format!("Tensor({}) {}", sizes.join(", "), tensor.dtype().name())
}
