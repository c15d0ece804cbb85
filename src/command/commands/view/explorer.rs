//! A graph and its overlays as Google's Model Explorer reads them: nodes in namespaces, one for each scope, and node data.

use std::path::{Path, PathBuf};

use graphpatch_core::graph::{Graph, Kind, Node, Value as Seen};
use graphpatch_core::path::NodePath;
use serde_json::{Map, Value, json};

use super::flow::{Flow, Placed};
use super::values::Statistics;
use crate::commands::sweep::table::Table;

/// The colors at the two ends of an overlay's scale.
const LOW: &str = "#f7fbff";
const HIGH: &str = "#08519c";

/// The graphs.
pub fn graphs(label: &str, graphs: &[Graph]) -> Value {
    let graphs: Vec<Value> = graphs.iter().map(one).collect();
    json!({ "label": label, "graphs": graphs })
}

fn one(graph: &Graph) -> Value {
    let flow = Flow::of(graph);
    let leaves = flow.nodes.iter().filter(|placed| !placed.node.is_scope());
    let nodes: Vec<Value> = leaves.map(|placed| leaf(&flow, placed)).collect();
    let mut groups = Map::new();
    for placed in flow.nodes.iter().filter(|placed| placed.node.is_scope()) {
        if placed.scope.is_some() {
            let about = json!({ "class": placed.node.target, "module": placed.node.module_path });
            groups.insert(placed.path.names.join("/"), about);
        }
    }
    json!({ "id": graph.name, "nodes": nodes, "groupNodeAttributes": groups })
}

fn leaf(flow: &Flow<'_>, placed: &Placed<'_>) -> Value {
    let (node, names) = (placed.node, &placed.path.names);
    let around = names.split_last().map_or(&[][..], |(_, around)| around);
    let edges: Vec<Value> = placed
        .uses
        .iter()
        .filter_map(|used| {
            let (from, output) = source(flow, used.from)?;
            let output = match used.dig.is_empty() {
                true => output,
                false => used.dig.clone(),
            };
            Some(json!({
                "sourceNodeId": from,
                "sourceNodeOutputId": output,
                "targetNodeInputId": used.argument,
            }))
        })
        .collect();
    json!({
        "id": placed.path.to_string(),
        "label": node.name,
        "namespace": around.join("/"),
        "attrs": attributes(node),
        "incomingEdges": edges,
        "outputsMetadata": outputs(&node.value),
    })
}

/// The leaf that produces a node's value. For a scope it is the scope's output.
fn source(flow: &Flow<'_>, at: usize) -> Option<(String, String)> {
    let placed = flow.nodes.get(at)?;
    let leaf = match placed.node.is_scope() {
        true => flow
            .children(at)
            .find(|child| flow.nodes[*child].node.kind == Kind::Output)?,
        false => at,
    };
    Some((flow.nodes[leaf].path.to_string(), "0".to_owned()))
}

fn attributes(node: &Node) -> Vec<Value> {
    let mut all = vec![("value", node.value.label())];
    if !node.target.is_empty() {
        all.push(("target", node.target.clone()));
    }
    if let Some(frame) = node.frames.last() {
        all.push(("source", format!("{}:{}", frame.file, frame.line)));
    }
    let pairs = all.into_iter();
    pairs
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect()
}

/// The metadata of a value's outputs: one entry, or one for each element of a container.
fn outputs(value: &Seen) -> Vec<Value> {
    let entry = |id: &str, value: &Seen| {
        let mut about = vec![json!({ "key": "shape", "value": value.label() })];
        if let Seen::Tensor(tensor) = value {
            about.push(json!({ "key": "dtype", "value": tensor.dtype }));
            about.push(json!({ "key": "device", "value": tensor.device }));
        }
        json!({ "id": id, "attrs": about })
    };
    match value {
        Seen::Tuple(items) | Seen::List(items) => {
            let places = items.iter().enumerate();
            places
                .map(|(i, item)| entry(&format!("sub_{i}"), item))
                .collect()
        }
        Seen::Dict(items) => items.iter().map(|(key, item)| entry(key, item)).collect(),
        value => vec![entry("0", value)],
    }
}

/// Numbers at nodes, for each graph that has them.
fn overlay(name: &str, graphs: &[Graph], found: &[(NodePath, f64)]) -> Value {
    let mut data = Map::new();
    for graph in graphs {
        let mut results = Map::new();
        for (path, number) in found {
            let path = graph.canonical(path);
            let whole = NodePath {
                dig: Vec::new(),
                ..path.clone()
            };
            if number.is_finite() && graph.value(&path).is_some() {
                results.insert(whole.to_string(), json!({ "value": number }));
            }
        }
        if !results.is_empty() {
            let gradient = [
                json!({ "stop": 0, "bgColor": LOW }),
                json!({ "stop": 1, "bgColor": HIGH }),
            ];
            let about = json!({ "name": name, "results": results, "gradient": gradient });
            data.insert(graph.name.clone(), about);
        }
    }
    Value::Object(data)
}

/// The norms of kept values, by node; of several values of a node, the last.
pub fn norms(graphs: &[Graph], values: &[Statistics]) -> Value {
    let mut found = Vec::new();
    for value in values {
        let mut paths = graphs.iter().filter_map(|graph| value.path(graph));
        found.extend(paths.next().zip(value.l2));
    }
    overlay("norm", graphs, &found)
}

/// What a sweep measured, metric by metric.
pub fn sweeps(graphs: &[Graph], table: &Table) -> Vec<(String, Value)> {
    let metrics = table.metrics.iter().enumerate();
    metrics
        .map(|(i, metric)| {
            let rows = table.rows.iter();
            let found: Vec<(NodePath, f64)> = rows
                .filter_map(|row| Some((row.node.clone(), row.values.get(i)?.0)))
                .collect();
            (metric.name.clone(), overlay(&metric.name, graphs, &found))
        })
        .collect()
}

/// The file of an overlay: it lies beside the file of the graphs, with the overlay's name added.
pub fn beside(graphs: &Path, name: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    graphs.with_extension(format!("{name}.json"))
}
