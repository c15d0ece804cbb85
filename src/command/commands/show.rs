//! `graphpatch show`: a saved graph, or a part of it, as a tree, as code, as JSON, as shapes; or what is found in it.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use graphpatch_core::error::Error;
use graphpatch_core::graph::{self, Graph, Node, Query, ShapePattern, TreeStyle, Value};
use graphpatch_core::path::NodePath;

use crate::commands::merge;
use crate::terminal::{self, Color, PATH, styled};
use crate::voice::{Stop, print};

/// The tree of a saved graph, or of the part below PATH
#[derive(Args)]
pub struct Show {
    /// A graph saved by `graphpatch run --graph`; a pattern such as 'g.rank*.json' stands for the graphs of all ranks
    graph: PathBuf,
    /// Where to begin; a pattern such as 'h_*.mlp.output' shows one line for each node that it means
    #[arg(default_value = "")]
    path: NodePath,
    /// As JSON, with everything that the file says
    #[arg(long, conflicts_with_all = ["shape", "code", "find"])]
    json: bool,
    /// As code: a scope as a function, a leaf as the lines of source that called it
    #[arg(long, conflicts_with_all = ["shape", "find"])]
    code: bool,
    /// One line for each value: path, shape, dtype, device and layout; with a PATTERN such as '*,768', '1,5..128,...' or
    /// '()' only those that fit (* is any size, ... any number of them)
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "")]
    shape: Option<String>,
    /// One line for each node whose path, operation, module class or source file has TEXT in it, or whose path is the
    /// pattern TEXT (with a * or ?)
    #[arg(long, value_name = "TEXT")]
    find: Option<String>,
    /// With --find and --shape: where each was called
    #[arg(long)]
    source: bool,
    /// Not more than so many levels of the tree
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// How much is in each scope
    #[arg(long)]
    counts: bool,
    /// Draw neighbors that look the same once (on a terminal this is so without asking)
    #[arg(long)]
    fold: bool,
    /// Draw everything, also on a terminal
    #[arg(long, conflicts_with = "fold")]
    all: bool,
    /// When to color
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

impl Show {
    pub fn run(mut self) -> Result<u8, Stop> {
        let pattern = self.pattern()?;
        let file = merge::load(&self.graph)?;
        if self.json && self.path.is_root() {
            return print(&json(&file)?).map(|()| 0);
        }
        let known = |path: &NodePath| file.graphs.iter().any(|graph| graph.node(path).is_some());
        if self.path.is_pattern() && !known(&self.path) {
            return self.of_pattern(&file.graphs, pattern);
        }
        let known: Vec<&Graph> = file
            .graphs
            .iter()
            .filter(|graph| graph.node(&self.path).is_some())
            .collect();
        if known.is_empty() && !(self.path.is_root() && self.find.is_some()) {
            return Err(self.unknown(&file.graphs));
        }
        if self.find.is_some() || pattern.is_some() {
            return self.search(&file.graphs, &self.path, self.query(pattern));
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

    /// The shape to look for. If the word that follows `--shape` is not a shape, it is taken as the path:
    /// `show G --shape linear`.
    fn pattern(&mut self) -> Result<Option<ShapePattern>, Stop> {
        let given = match &self.shape {
            Some(given) if !given.is_empty() => given.clone(),
            _ => return Ok(None),
        };
        let named =
            given.starts_with(|c: char| c.is_alphabetic() || c == '_') && !given.contains(',');
        if named && !given.starts_with("Tensor(") && self.path.is_root() {
            self.path = given.parse()?;
            self.shape = Some(String::new());
            return Ok(None);
        }
        Ok(Some(given.parse()?))
    }

    fn unknown(&self, graphs: &[Graph]) -> Stop {
        let hint = hint(graphs, &self.path);
        let (file, path) = (self.graph.display(), &self.path);
        match graphs.is_empty() {
            true => Stop::usage(format!("{file}: no graph in it: nothing was recorded")),
            false => Stop::usage(format!("{file}: no node {path}{hint}")),
        }
    }

    fn one(&self, graph: &Graph) -> Result<String, Stop> {
        if self.code {
            return Ok(lines(graph.code(&self.path)?));
        }
        if !self.json && self.shape.is_none() {
            return Ok(lines(graph.styled_tree(&self.path, self.style())?));
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

    fn style(&self) -> TreeStyle {
        TreeStyle {
            depth: self.depth,
            fold: self.fold || (!self.all && terminal::is_terminal()),
            counts: self.counts,
            paint: match self.color.is_on() {
                true => Some(terminal::paint),
                false => None,
            },
        }
    }

    /// What `--find` and `--shape` ask for.
    fn query(&self, shape: Option<ShapePattern>) -> Query {
        let find = self.find.clone();
        let pattern = find.as_ref().filter(|text| text.contains(['*', '?']));
        let pattern = pattern.and_then(|text| text.parse().ok());
        Query {
            text: find.filter(|_| pattern.is_none()),
            pattern,
            shape,
            ..Query::default()
        }
    }

    /// Prints the nodes that match the path, which is a pattern, in the roots that it matches.
    fn of_pattern(&self, graphs: &[Graph], shape: Option<ShapePattern>) -> Result<u8, Stop> {
        if self.json || self.code {
            return Err(Stop::usage(format!(
                "{}: a pattern means several nodes; --json and --code show one",
                self.path
            )));
        }
        let mut query = self.query(shape);
        if query.pattern.is_some() {
            return Err(Stop::usage("give one pattern: PATH or --find TEXT"));
        }
        if query.shape.is_none() && self.shape.is_some() {
            query.shape = Some("...".parse()?);
        }
        query.pattern = Some(self.path.to_string().parse()?);
        self.search(
            graphs,
            &NodePath::root().in_root(self.path.root.clone()),
            query,
        )
    }

    /// Prints one line for each node that is found; the exit code is 1 if there is none.
    fn search(&self, graphs: &[Graph], from: &NodePath, query: Query) -> Result<u8, Stop> {
        let color = self.color.is_on();
        let mut text = String::new();
        for graph in graphs {
            let hits = graph.search(from, &query);
            if graphs.len() > 1 && !hits.is_empty() {
                let _ = writeln!(text, "# {}", graph.name);
            }
            for hit in hits {
                let path = styled(&hit.path.to_string(), PATH, color);
                let _ = write!(text, "{path}: {}", hit.label);
                if !hit.node.target.is_empty() {
                    let _ = write!(text, " {}", hit.node.target);
                }
                if let Some(frame) = hit.node.frames.last().filter(|_| self.source) {
                    let _ = write!(text, " {}:{} in {}", frame.file, frame.line, frame.function);
                }
                text.push('\n');
            }
        }
        if text.is_empty() {
            return Err(self.nothing(graphs));
        }
        print(&text).map(|()| 0)
    }

    fn nothing(&self, graphs: &[Graph]) -> Stop {
        let what = match (&self.find, &self.shape) {
            (None, None) => format!("the pattern '{}'", self.path),
            (Some(text), Some(shape)) => format!("{text:?} with the shape {shape}"),
            (Some(text), None) => format!("{text:?}"),
            (None, shape) => format!(
                "a value of the shape {}",
                shape.as_deref().unwrap_or_default()
            ),
        };
        let text = self.find.as_deref().unwrap_or_default();
        let hint = match (text.parse::<ShapePattern>(), text.parse::<NodePath>()) {
            (Ok(_), _) if self.shape.is_none() => format!("\n  shapes: --shape '{text}'"),
            (_, Ok(path)) if self.find.is_some() => hint(graphs, &path),
            _ => String::new(),
        };
        Stop {
            message: format!("{}: nothing found for {what}{hint}", self.graph.display()),
            code: 1,
        }
    }
}

/// The lines of an error message that suggest similar paths; empty if there are none.
pub fn hint(graphs: &[Graph], path: &NodePath) -> String {
    graph::nearest_line(graphs, path, graph::Offer::Nodes, "  ")
}

/// The text, with a newline at its end.
pub fn lines(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

pub fn json(what: &impl serde::Serialize) -> Result<String, Stop> {
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
