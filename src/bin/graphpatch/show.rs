//! `graphpatch show`: a saved graph, or a part of it, as a tree, as JSON, or as shapes.

use std::path::PathBuf;

use clap::Args;
use graphpatch::error::Error;
use graphpatch::graph::{self, Graph, GraphFile, Node, Value};
use graphpatch::path::NodePath;

use crate::{Stop, print};

/// The tree of a saved graph, or of the part below PATH
#[derive(Args)]
pub struct Show {
    /// A graph saved by `graphpatch run --graph`
    graph: PathBuf,
    /// Where to begin
    #[arg(default_value = "")]
    path: NodePath,
    /// As JSON, with everything that the file says
    #[arg(long, conflicts_with = "shape")]
    json: bool,
    /// One line for each value: path, shape, dtype, device and layout
    #[arg(long)]
    shape: bool,
}

impl Show {
    pub fn run(self) -> Result<u8, Stop> {
        let file = GraphFile::load(&self.graph)?;
        if self.json && self.path.is_root() {
            return print(&json(&file)?).map(|()| 0);
        }
        let known: Vec<&Graph> = file
            .graphs
            .iter()
            .filter(|graph| graph.node(&self.path).is_some())
            .collect();
        if known.is_empty() {
            let nearest = graph::nearest(&file.graphs, &self.path);
            let hint = if nearest.is_empty() {
                String::new()
            } else {
                format!("\n  nearest: {}", nearest.join(", "))
            };
            return Err(Stop::usage(format!(
                "{}: no node {}{hint}",
                self.graph.display(),
                self.path
            )));
        }
        let mut text = String::new();
        for graph in &known {
            if known.len() > 1 && !self.json {
                text += &format!("# {}\n", graph.name);
            }
            text += &self.one(graph)?;
        }
        print(&text).map(|()| 0)
    }

    fn one(&self, graph: &Graph) -> Result<String, Stop> {
        if !self.json && !self.shape {
            return Ok(lines(graph.tree(&self.path)?));
        }
        let Some(node) = graph.node(&self.path) else {
            return Ok(String::new());
        };
        if self.json {
            return if self.path.dig.is_empty() {
                json(node)
            } else {
                json(&graph.value(&self.path))
            };
        }
        let mut text = String::new();
        match graph.value(&self.path) {
            Some(value) => shapes(&value, &self.path, &mut text),
            None if node.is_scope() => scope_shapes(node, &self.path, &mut text),
            None => return Err(Stop::usage(format!("{} names no value", self.path))),
        }
        Ok(text)
    }
}

/// With a newline at its end.
pub fn lines(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn json(what: &impl serde::Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(what)
        .map(lines)
        .map_err(|why| Error::Internal(why.to_string()).into())
}

fn scope_shapes(scope: &Node, at: &NodePath, text: &mut String) {
    for node in &scope.children {
        let path = at.child(&node.name);
        if node.is_scope() {
            scope_shapes(node, &path, text);
        } else {
            shapes(&node.value, &path, text);
        }
    }
}

fn shapes(value: &Value, at: &NodePath, text: &mut String) {
    if let Value::Tensor(info) = value {
        *text += &format!(
            "{at}: {} {} {} {}\n",
            value.label(),
            info.dtype,
            info.device,
            info.layout
        );
        return;
    }
    let elements = value.elements();
    if elements.is_empty() {
        *text += &format!("{at}: {}\n", value.label());
    }
    for (key, element) in elements {
        shapes(&element, &at.element(key), text);
    }
}
