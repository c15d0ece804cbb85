//! A scope as Graphviz text: inner scopes as clusters, data flow as edges.

use std::collections::HashSet;
use std::fmt::Write;

use graphpatch_core::graph::Kind;

use super::flow::Flow;

/// One `digraph` of the scope at `root`. Scopes more than `depth` below it are single boxes.
pub fn digraph(name: &str, flow: &Flow, root: usize, depth: usize) -> String {
    let mut drawing = Drawing {
        flow,
        depth,
        text: String::new(),
        shown: vec![None; flow.nodes.len()],
    };
    let title = match flow.nodes[root].path.is_root() {
        true => name.to_owned(),
        false => format!("{name} {}", flow.nodes[root].path),
    };
    let _ = writeln!(drawing.text, "digraph {} {{", quoted(&title));
    drawing.text +=
        "  rankdir=TB;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n";
    drawing.text += "  edge [fontname=\"sans-serif\", fontsize=9];\n";
    drawing.scope(root, 0);
    drawing.edges(root);
    drawing.text + "}\n"
}

struct Drawing<'a> {
    flow: &'a Flow<'a>,
    depth: usize,
    text: String,
    /// The box that stands for a node: its own, its scope's, or, for a scope drawn as a cluster, its output's.
    shown: Vec<Option<usize>>,
}

impl Drawing<'_> {
    fn scope(&mut self, scope: usize, depth: usize) {
        let indent = "  ".repeat(depth + 1);
        let children: Vec<usize> = self.flow.children(scope).collect();
        for &at in &children {
            let node = self.flow.nodes[at].node;
            if node.is_scope() && depth < self.depth && !node.children.is_empty() {
                let _ = writeln!(self.text, "{indent}subgraph cluster_{at} {{");
                let _ = writeln!(self.text, "{indent}  label={};", quoted(&node.name));
                self.scope(at, depth + 1);
                let _ = writeln!(self.text, "{indent}}}");
            } else {
                self.leaf(at, &indent);
            }
        }
        let output = children
            .iter()
            .rfind(|at| self.flow.nodes[**at].node.kind == Kind::Output);
        self.shown[scope] = output.copied();
    }

    fn leaf(&mut self, at: usize, indent: &str) {
        let node = self.flow.nodes[at].node;
        let (label, style) = match node.kind {
            Kind::Scope => (
                format!("{}\n{}", node.name, node.target),
                ", style=\"rounded,bold\"",
            ),
            Kind::Parameter => (
                format!("{}\n{}", node.name, node.value.label()),
                ", shape=note",
            ),
            Kind::Input | Kind::Output => (
                format!("{}\n{}", node.name, node.value.label()),
                ", shape=ellipse",
            ),
            Kind::Op => (format!("{}\n{}", node.name, node.value.label()), ""),
        };
        let _ = writeln!(
            self.text,
            "{indent}n{at} [label={}, tooltip={}{style}];",
            quoted(&label),
            quoted(&self.flow.nodes[at].path.to_string())
        );
        for inner in at..self.flow.nodes.len() {
            if !self.flow.is_within(inner, at) {
                break;
            }
            self.shown[inner] = Some(at);
        }
    }

    /// Writes the edges. Values from outside the scope come from dashed boxes.
    fn edges(&mut self, root: usize) {
        let mut outside = HashSet::new();
        let mut drawn = HashSet::new();
        for at in 0..self.flow.nodes.len() {
            let Some(to) = self.shown[at].filter(|_| at != root && self.flow.is_within(at, root))
            else {
                continue;
            };
            for used in &self.flow.nodes[at].uses {
                let from = self.shown[used.from].unwrap_or(used.from);
                // Skips an edge that begins and ends in the same box, or that is drawn already.
                if from == to || !drawn.insert((from, to, &used.dig)) {
                    continue;
                }
                if self.shown[used.from].is_none() && outside.insert(from) {
                    let path = self.flow.nodes[from].path.to_string();
                    let _ = writeln!(
                        self.text,
                        "  n{from} [label={}, style=dashed];",
                        quoted(&path)
                    );
                }
                let label = match used.dig.is_empty() {
                    true => String::new(),
                    false => format!(" [label={}]", quoted(&used.dig)),
                };
                let _ = writeln!(self.text, "  n{from} -> n{to}{label};");
            }
        }
    }
}

/// Quotes a text as a string of Graphviz's language, in which only `"`, `\` and line ends have to be escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            c if c.is_control() => out.extend(c.escape_default().flat_map(|c| match c {
                '\\' => vec!['\\', '\\'],
                c => vec![c],
            })),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;

    #[test]
    fn clusters_and_edges() {
        let graph = samples::graph();
        let flow = Flow::of(&graph);
        let text = digraph("M", &flow, 0, usize::MAX);
        let id = |path: &str| flow.find(&path.parse().expect("path")).expect("node");
        let edge = |from: &str, to: &str| format!("n{} -> n{}", id(from), id(to));
        assert!(
            text.contains(&format!("subgraph cluster_{}", id("linear"))),
            "{text}"
        );
        assert!(
            text.contains(&edge("x", "linear.input"))
                && text.contains(&edge("linear.output", "split"))
        );
        assert!(text.contains(&format!("{} [label=\"sub_1\"]", edge("split", "cat"))));
        // Inner scopes are drawn as single boxes, so the edges end at these boxes.
        let text = digraph("M", &flow, 0, 0);
        assert!(
            !text.contains("subgraph") && text.contains(&edge("x", "linear")),
            "{text}"
        );
        assert!(
            text.contains(&edge("linear", "cat")) && !text.contains(&edge("x", "linear.input"))
        );
        let text = digraph("M", &flow, id("linear"), 9);
        assert!(
            text.starts_with("digraph \"M linear\"") && text.contains("label=\"x\", style=dashed"),
            "{text}"
        );
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\n\nc\t"), r#""a\"b\\n\nc\\t""#);
    }
}
