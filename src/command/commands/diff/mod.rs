//! `graphpatch diff`: what differs between two saved graphs, and between the values that were saved with them (`values.rs`).

pub mod values;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use graphpatch_core::graph::{self, Difference, Graph, GraphFile};
use graphpatch_core::path::{NodePath, Pattern};
use graphpatch_core::tensor::safetensors;
use serde::Serialize;

use crate::commands::show::{hint, json};
use crate::terminal::{Color, LEFT, PATH, RIGHT, styled};
use crate::voice::{Stop, print};

use values::{Dtypes, ValueReport, compare, first, in_order, node_of};

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
    /// Only at these nodes: a path with * (within a name), ** (any names), ?, [0-5], {a,b}; may be repeated
    #[arg(long, value_name = "PATTERN")]
    nodes: Vec<Pattern>,
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

impl Diff {
    pub fn run(self) -> Result<u8, Stop> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Stop::usage("--tolerance: expected a number of at least 0"));
        }
        let graphs = (GraphFile::load(&self.a)?, GraphFile::load(&self.b)?);
        self.check_nodes([&graphs.0.graphs, &graphs.1.graphs])?;
        let mut report = Report {
            graphs: self.graphs(&graphs.0.graphs, &graphs.1.graphs),
            values: Vec::new(),
        };
        if let Some([a, b]) = self.values.as_deref() {
            let (kept, other) = (safetensors::read_all(a)?, safetensors::read_all(b)?);
            let mut found = compare(&kept, &other, self.tolerance, Dtypes::Differ);
            let all = [&graphs.0.graphs[..], &graphs.1.graphs].concat();
            found.retain(|value| self.means_key(&value.key, &all));
            report.values = in_order(found, &graphs.0.graphs);
            if self.first {
                report.values = first(report.values, &graphs.0.graphs).into_iter().collect();
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
            let mut differences = graph::diff(a, b, self.code);
            differences.retain(|difference| self.means(difference, a, b));
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
                let known = others.iter().any(|other| other.name == graph.name);
                if !known && self.means_part(graph, &NodePath::root()) {
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

    /// Refuses a pattern that means nothing in either file.
    fn check_nodes(&self, files: [&[Graph]; 2]) -> Result<(), Stop> {
        for pattern in &self.nodes {
            let mut graphs = files.into_iter().flatten();
            if !graphs.any(|graph| !graph.meant_by(pattern).is_empty()) {
                let hint = pattern
                    .to_string()
                    .parse()
                    .map(|path| hint(files[0], &path));
                return Err(Stop::usage(format!(
                    "--nodes {pattern}: neither graph has such a node{}",
                    hint.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    fn means(&self, difference: &Difference, a: &Graph, b: &Graph) -> bool {
        let (graph, path) = match difference {
            Difference::OnlyB { path, .. } => (b, path),
            Difference::OnlyA { path, .. }
            | Difference::Value { path, .. }
            | Difference::Code { path, .. } => (a, path),
        };
        path.parse().is_ok_and(|path| self.means_part(graph, &path))
    }

    /// Whether something is asked for that lies there or below.
    fn means_part(&self, graph: &Graph, at: &NodePath) -> bool {
        self.nodes.is_empty() || graph.means_below(at, &self.nodes)
    }

    /// Whether something is asked for that was kept under this key: at its node, in one of the roots that the key means.
    fn means_key(&self, key: &str, graphs: &[Graph]) -> bool {
        let Some(path) = node_of(key) else {
            return self.nodes.is_empty();
        };
        let known = graphs.iter().map(|graph| graph.name.as_str());
        let mut roots: Vec<&str> = known.filter(|name| path.means(name)).collect();
        if roots.is_empty() {
            roots.extend(path.root.as_deref());
        }
        let node = path.without_root();
        let takes = |pattern: &Pattern| roots.iter().any(|root| pattern.takes(root, &node));
        self.nodes.is_empty() || self.nodes.iter().any(takes)
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
            value.write(&mut text, color);
            for line in value.code.iter().flat_map(|code| code.lines()) {
                let _ = writeln!(text, "    {line}");
            }
        }
        text
    }
}
