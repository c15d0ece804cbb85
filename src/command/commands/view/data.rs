//! What the page holds: graphs as rows of nodes, every text once.

use std::collections::{HashMap, HashSet};

use graphpatch_core::graph::{Graph, Kind, Node, TensorInfo, Value};
use graphpatch_core::path::NodePath;
use serde::Serialize;

use super::compared::Compared;
use super::flow::Flow;
use super::sweep::Sweep;
use super::values::Statistics;

/// Everything that the page's script reads. Texts are given by their index in `texts`, so that each is stored once.
#[derive(Serialize)]
pub struct Data {
    file: String,
    version: &'static str,
    /// The path to begin at.
    start: String,
    texts: Vec<String>,
    graphs: Vec<Rows>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sweep: Option<Sweep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

#[derive(Serialize)]
struct Rows {
    name: String,
    runs: u64,
    nodes: Vec<Row>,
}

/// A node, or an element of a container below its node. Parents stand before their children.
#[derive(Serialize)]
struct Row {
    kind: &'static str,
    name: usize,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<usize>,
    /// `Tensor(1, 768)`, `Graph(5)`.
    label: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<usize>,
    /// Its code, by lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    code: Vec<usize>,
    /// The files of its frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<usize>,
    /// Row, dig and argument of each value that it was made from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uses: Vec<(usize, usize, usize)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<Statistics>,
    /// Those of the other recording.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Statistics>,
}

#[derive(Default)]
struct Texts {
    all: Vec<String>,
    known: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = self.all.len();
        self.all.push(text.to_owned());
        self.known.insert(text.to_owned(), at);
        at
    }

    fn some(&mut self, text: &str) -> Option<usize> {
        (!text.is_empty()).then(|| self.number(text))
    }
}

impl Data {
    /// All graphs of a file, with the statistics at the nodes that their keys name. Also returns the keys that name no node.
    pub fn new(
        file: String,
        start: &NodePath,
        graphs: &[Graph],
        values: &[Statistics],
    ) -> (Data, Vec<String>) {
        let mut texts = Texts::default();
        let mut placed = HashSet::new();
        let graphs = graphs
            .iter()
            .map(|graph| rows(graph, values, &mut placed, &mut texts))
            .collect();
        let data = Data {
            file,
            version: env!("CARGO_PKG_VERSION"),
            start: start.to_string(),
            texts: texts.all,
            graphs,
            sweep: None,
            compared: None,
        };
        let keys = values.iter().map(|value| &value.key);
        let lost = keys.filter(|key| !placed.contains(*key)).cloned().collect();
        (data, lost)
    }

    pub fn with_sweep(self, sweep: Option<Sweep>) -> Data {
        Data { sweep, ..self }
    }

    /// With what differs in another recording, and the statistics of its values at the nodes of these graphs.
    pub fn with_compared(
        mut self,
        compared: Option<Compared>,
        graphs: &[Graph],
        values: &[Statistics],
    ) -> Data {
        for (rows, graph) in self.graphs.iter_mut().zip(graphs) {
            let mut kept = by_path(graph, values, &mut HashSet::new());
            for row in &mut rows.nodes {
                row.others = kept.remove(&row.path).unwrap_or_default();
            }
        }
        self.compared = compared;
        self
    }
}

fn rows(
    graph: &Graph,
    values: &[Statistics],
    placed: &mut HashSet<String>,
    texts: &mut Texts,
) -> Rows {
    let flow = Flow::of(graph);
    let mut kept = by_path(graph, values, placed);
    let mut nodes: Vec<Row> = Vec::with_capacity(flow.nodes.len());
    let mut at = Vec::with_capacity(flow.nodes.len());
    for node in &flow.nodes {
        at.push(nodes.len());
        let row = Row {
            parent: node.scope.map(|scope| at[scope]),
            // Filled in later, since producers further down have no row yet.
            uses: Vec::new(),
            ..row(graph, node.node, &node.path, texts)
        };
        nodes.push(row);
        elements(&node.node.value, &node.path, texts, &mut nodes);
    }
    for (i, node) in flow.nodes.iter().enumerate() {
        let uses = node.uses.iter();
        nodes[at[i]].uses = uses
            .map(|used| {
                (
                    at[used.from],
                    texts.number(&used.dig),
                    texts.number(&used.argument),
                )
            })
            .collect();
    }
    for row in &mut nodes {
        row.values = kept.remove(&row.path).unwrap_or_default();
    }
    Rows {
        name: graph.name.clone(),
        runs: graph.runs,
        nodes,
    }
}

/// The statistics by the paths of their nodes. Adds the keys of those that have a node to `placed`.
fn by_path(
    graph: &Graph,
    values: &[Statistics],
    placed: &mut HashSet<String>,
) -> HashMap<String, Vec<Statistics>> {
    let mut kept: HashMap<String, Vec<Statistics>> = HashMap::new();
    for value in values {
        if let Some(path) = value.path(graph) {
            placed.insert(value.key.clone());
            kept.entry(path.to_string())
                .or_default()
                .push(value.clone());
        }
    }
    kept
}

fn row(graph: &Graph, node: &Node, path: &NodePath, texts: &mut Texts) -> Row {
    let mut files: Vec<usize> = Vec::new();
    for frame in &node.frames {
        let file = texts.some(&frame.file);
        files.extend(file.filter(|file| !files.contains(file)));
    }
    // The path is that of an existing node, so this does not fail.
    let code = graph.code(path).unwrap_or_default();
    Row {
        kind: kind(node.kind),
        name: texts.number(&node.name),
        path: path.to_string(),
        parent: None,
        label: texts.number(&node.label()),
        tensor: tensor(&node.value).map(|text| texts.number(&text)),
        target: texts.some(&node.target),
        module: texts.some(&node.module_path),
        code: code.lines().map(|line| texts.number(line)).collect(),
        files,
        uses: Vec::new(),
        values: Vec::new(),
        others: Vec::new(),
    }
}

/// A container's elements, below the row that was pushed last.
fn elements(value: &Value, path: &NodePath, texts: &mut Texts, nodes: &mut Vec<Row>) {
    let parent = nodes.len().checked_sub(1);
    for (key, element) in value.elements() {
        let path = path.element(&key);
        nodes.push(Row {
            kind: "element",
            name: texts.number(&key),
            path: path.to_string(),
            parent,
            label: texts.number(&element.label()),
            tensor: tensor(&element).map(|text| texts.number(&text)),
            target: None,
            module: None,
            code: Vec::new(),
            files: Vec::new(),
            uses: Vec::new(),
            values: Vec::new(),
            others: Vec::new(),
        });
        elements(&element, &path, texts, nodes);
    }
}

/// The dtype, device and layout of a tensor; if they differed between runs, all of them.
fn tensor(value: &Value) -> Option<String> {
    match value {
        Value::Tensor(TensorInfo {
            dtype,
            device,
            layout,
            ..
        }) => Some(format!("{dtype} {device} {layout}")),
        Value::Mixed(kinds) => kinds.iter().find_map(tensor),
        _ => None,
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Parameter => "parameter",
        Kind::Op => "op",
        Kind::Scope => "scope",
        Kind::Output => "output",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;

    #[test]
    fn rows_know_their_parents_and_producers() {
        let graph = samples::graph();
        let (data, lost) = Data::new("g.json".into(), &NodePath::root(), &[graph], &[]);
        assert!(lost.is_empty());
        let nodes = &data.graphs[0].nodes;
        let paths: Vec<&str> = nodes.iter().map(|row| row.path.as_str()).collect();
        let split = paths
            .iter()
            .position(|path| *path == "split")
            .expect("split");
        assert_eq!(
            paths[split..split + 3],
            ["split", "split|sub_0", "split|sub_1"]
        );
        assert_eq!(nodes[split + 2].parent, Some(split));
        let cat = nodes.iter().find(|row| row.path == "cat").expect("cat");
        let (from, dig, argument) = cat.uses[0];
        assert_eq!(
            (from, &*data.texts[dig], &*data.texts[argument]),
            (split, "sub_1", "0[0]")
        );
        let lines: Vec<&str> = cat.code.iter().map(|line| &*data.texts[*line]).collect();
        assert_eq!(
            lines,
            ["File \"model.py\", line 8, in forward", "    cat(…)"]
        );
        assert_eq!(data.texts[cat.files[0]], "model.py");
        assert_eq!(
            data.texts[cat.tensor.expect("tensor")],
            "float32 cpu strided"
        );
    }
}
