//! `graphpatch view`: a saved graph as one page for a browser, or as Graphviz text.
//!
//! `contents.rs` says what a page is made of; `flow.rs` finds the data flow; `data.rs`, `values.rs` and `sweep.rs` make what the
//! page shows, `page.rs` the page, from the files in `page/`; `dot.rs` writes Graphviz, `explorer.rs` what Model Explorer reads.

pub mod browser;
mod compared;
pub mod contents;
mod data;
mod dot;
mod explorer;
mod flow;
pub mod names;
mod page;
mod sweep;
pub mod values;

use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_core::graph::{Graph, GraphFile, Node};
use graphpatch_core::output::replace;
use graphpatch_core::path::{NodePath, Pattern};

use crate::commands::show::hint;
use crate::commands::sweep::table::Table;
use crate::launch::outputs::{self, Content, Input, Output};
use crate::terminal;
use crate::voice::{Stop, print, say};
use contents::Contents;
use flow::Flow;
use names::name_of;
use values::Statistics;

/// A saved graph as one page for a browser: tree, search, code, data flow
#[derive(Args)]
pub struct View {
    /// A graph saved by `graphpatch run --graph`
    graph: PathBuf,
    /// The node to begin at; with --dot, the scope to draw. Of a pattern such as 'h_*.mlp' the first one; with --dot, all
    #[arg(default_value = "")]
    path: NodePath,
    /// Where the page goes (HTML; it needs no network and no other file), by default beside the graph; on a terminal a browser
    /// then opens it. With --dot, the text instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Values that `graphpatch run --probe --save` wrote: norms and histograms in the page
    #[arg(long, value_name = "FILE", conflicts_with = "dot")]
    values: Option<PathBuf>,
    /// A table that `graphpatch sweep -o TABLE.json` wrote: its heat map in the page
    #[arg(long, value_name = "TABLE", conflicts_with = "dot")]
    sweep: Option<PathBuf>,
    /// Another recording of the model: what differs there, in the tree and beside each node
    #[arg(long, value_name = "GRAPH", conflicts_with_all = ["dot", "model_explorer", "statistics"])]
    compare: Option<PathBuf>,
    /// With --compare: the values that were saved with it, beside those of --values
    #[arg(long, value_name = "FILE", requires = "compare")]
    compare_values: Option<PathBuf>,
    /// For Google's Model Explorer, instead of a page: the graph as JSON; with --values and --sweep also FILE's overlays beside it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dot", "output"])]
    model_explorer: Option<PathBuf>,
    /// The statistics of --values as a table (Parquet), instead of a page
    #[arg(long, value_name = "FILE", requires = "values", conflicts_with_all = ["dot", "output", "model_explorer"])]
    statistics: Option<PathBuf>,
    /// Graphviz text instead of a page
    #[arg(long)]
    dot: bool,
    /// With --dot, how many levels of inner scopes are drawn; those further in are single boxes
    #[arg(long, value_name = "N", requires = "dot")]
    depth: Option<usize>,
}

impl View {
    pub fn run(mut self) -> Result<u8, Stop> {
        let named = self.output.is_some();
        let other = self.dot || self.model_explorer.is_some() || self.statistics.is_some();
        if !named && !other {
            self.output = Some(self.graph.with_extension("html"));
        }
        self.check_files()?;
        let file = GraphFile::load(&self.graph)?;
        let meant = self.resolve(&file.graphs)?;
        if self.dot {
            let name = self.graph.display().to_string();
            let contents = self.contents(&name, &file.graphs);
            let text = self.graphviz(&contents.known()?, &meant)?;
            return match &self.output {
                Some(output) => write(output, &text),
                None => print(&text),
            }
            .map(|()| 0);
        }
        if let Some(file) = &self.statistics {
            return write_bytes(file, &table(&file.display(), &self.load_values()?)?).map(|()| 0);
        }
        let name = name_of(&self.graph);
        if let Some(output) = &self.model_explorer {
            return self.explore(output, &name, &file.graphs, &self.load_values()?);
        }
        if meant.len() > 1 {
            let (number, first) = (meant.len(), &meant[0]);
            say(format!(
                "the pattern means {number} nodes; the page begins at {first}"
            ));
        }
        let page = self.contents(&name, &file.graphs).page()?;
        page.notes.iter().for_each(say);
        let html = page.html;
        let Some(output) = &self.output else {
            return print(&html).map(|()| 0);
        };
        write(output, &html)?;
        if !named {
            let opened = terminal::is_terminal() && browser::open(output);
            let how = if opened {
                "a browser opens it"
            } else {
                "open it in a browser"
            };
            say(format!("wrote {}; {how}", output.display()));
        }
        Ok(0)
    }

    /// Replaces a pattern by the first path that it means, and returns all of them.
    fn resolve(&mut self, graphs: &[Graph]) -> Result<Vec<NodePath>, Stop> {
        let known = |path: &NodePath| {
            let exists = |graph: &Graph| graph.node(path).is_some() || graph.value(path).is_some();
            graphs.iter().any(exists)
        };
        if !self.path.is_pattern() || known(&self.path) {
            return Ok(vec![self.path.clone()]);
        }
        let pattern: Pattern = self.path.to_string().parse()?;
        let mut meant: Vec<NodePath> = Vec::new();
        for path in graphs.iter().flat_map(|graph| graph.meant_by(&pattern)) {
            if !meant.contains(&path) {
                meant.push(path);
            }
        }
        if self.dot {
            let scope = |path: &NodePath| {
                let is_scope = |graph: &Graph| graph.node(path).is_some_and(Node::is_scope);
                path.dig.is_empty() && graphs.iter().any(is_scope)
            };
            meant.retain(scope);
        }
        let Some(first) = meant.first() else {
            let what = if self.dot { "scope" } else { "node" };
            return Err(Stop::usage(format!(
                "{}: no {what} that '{pattern}' means{}",
                self.graph.display(),
                hint(graphs, &self.path)
            )));
        };
        self.path.clone_from(first);
        Ok(meant)
    }

    fn check_files(&self) -> Result<(), Stop> {
        let content = match self.dot {
            true => Content::Graphviz,
            false => Content::Page,
        };
        let page = self.output.iter().map(|file| Output {
            option: "-o",
            file,
            content,
        });
        let explorer = self.model_explorer.iter().map(|file| Output {
            option: "--model-explorer",
            file,
            content: Content::Graph,
        });
        let statistics = self.statistics.iter().map(|file| Output {
            option: "--statistics",
            file,
            content: Content::Parquet,
        });
        let output = page.chain(explorer).chain(statistics);
        let (values, sweep) = (self.values.iter(), self.sweep.iter());
        let mut inputs = vec![Input::new("the same command", &self.graph)];
        inputs.extend(values.map(|file| Input::new("--values", file)));
        inputs.extend(sweep.map(|file| Input::new("--sweep", file)));
        let others = self.compare.iter().chain(&self.compare_values);
        inputs.extend(others.map(|file| Input::new("--compare", file)));
        outputs::check(&output.collect::<Vec<_>>(), &inputs)
    }

    /// Writes the graphs for Model Explorer, and beside them a file for each overlay.
    fn explore(
        &self,
        output: &Path,
        name: &str,
        graphs: &[Graph],
        values: &[Statistics],
    ) -> Result<u8, Stop> {
        let mut overlays = Vec::new();
        if self.values.is_some() {
            overlays.push(("norm".to_owned(), explorer::norms(graphs, values)));
        }
        if let Some(file) = &self.sweep {
            overlays.extend(explorer::sweeps(graphs, &Table::load(file)?));
        }
        write(output, &format!("{}\n", explorer::graphs(name, graphs)))?;
        let mut files = Vec::new();
        for (name, data) in overlays {
            let file = explorer::beside(output, &name);
            write(&file, &format!("{data}\n"))?;
            files.push(file.display().to_string());
        }
        let data = match files.is_empty() {
            true => String::new(),
            false => format!(" --node_data_paths={}", files.join(",")),
        };
        let output = output.display();
        say(format!(
            "wrote {output}; to see it: model-explorer {output}{data}"
        ));
        Ok(0)
    }

    fn contents<'a>(&'a self, name: &'a str, graphs: &'a [Graph]) -> Contents<'a> {
        Contents {
            name,
            graphs,
            start: &self.path,
            values: self.values.as_deref(),
            sweep: self.sweep.as_deref(),
            compare: self.compare.as_deref(),
            compare_values: self.compare_values.as_deref(),
        }
    }

    fn load_values(&self) -> Result<Vec<Statistics>, Stop> {
        match &self.values {
            Some(file) => Ok(values::load(file)?),
            None => Ok(Vec::new()),
        }
    }

    fn graphviz(&self, graphs: &[&Graph], scopes: &[NodePath]) -> Result<String, Stop> {
        let mut text = String::new();
        for graph in graphs {
            let flow = Flow::of(graph);
            let there = |path: &&NodePath| scopes.len() == 1 || graph.node(path).is_some();
            for path in scopes.iter().filter(there) {
                let path = graph.canonical(path);
                match flow.find(&path).filter(|_| path.dig.is_empty()) {
                    Some(scope) if flow.nodes[scope].node.is_scope() => {
                        let depth = self.depth.unwrap_or(usize::MAX);
                        text += &dot::digraph(&graph.name, &flow, scope, depth);
                    }
                    _ => return Err(Stop::usage(format!("{path}: only a scope can be drawn"))),
                }
            }
        }
        Ok(text)
    }
}

/// The statistics, a row for each value.
fn table(file: &dyn std::fmt::Display, values: &[Statistics]) -> Result<Vec<u8>, Stop> {
    let table = values::columns(values).parquet();
    table.map_err(|why| Stop::usage(format!("{file}: {why}")))
}

fn write(file: &Path, text: &str) -> Result<(), Stop> {
    write_bytes(file, text.as_bytes())
}

fn write_bytes(file: &Path, bytes: &[u8]) -> Result<(), Stop> {
    replace(file, bytes).map_err(|why| Stop::not_written(file, &why))
}

#[cfg(test)]
pub mod samples {
    use graphpatch_core::graph::{Arg, Dim, Graph, Kind, Node, SourceLine, TensorInfo, Value};

    fn tensor() -> Value {
        Value::Tensor(TensorInfo {
            shape: vec![Dim::of(2)],
            dtype: "float32".into(),
            device: "cpu".into(),
            layout: "strided".into(),
        })
    }

    fn node(kind: Kind, name: &str, args: &[Arg]) -> Node {
        let mut node = Node::new(kind, name).with_value(tensor());
        node.args = args.to_vec();
        node
    }

    /// A graph with every way in which an operation gets a value: from a scope's inputs or output, in lists and dicts, from
    /// elements of containers, by keywords, and from nodes of other scopes.
    pub fn graph() -> Graph {
        let of = |name: &str| Arg::Node(name.into());
        let inner = vec![
            node(Kind::Input, "input", &[of("x")]),
            node(Kind::Parameter, "weight", &[]),
            node(Kind::Op, "linear", &[of("input"), of("weight")]),
            node(Kind::Output, "output", &[of("linear")]),
        ];
        let linear = Node::new(Kind::Scope, "linear").with_children(inner);
        let split = node(Kind::Op, "split", &[of("linear"), Arg::Const("1".into())])
            .with_value(Value::Tuple(vec![tensor(), tensor()]));
        let list = vec![of("split|sub_1"), Arg::Outer("linear.weight".into())];
        let mut cat = node(Kind::Op, "cat", &[Arg::List(list)]);
        cat.kwargs = vec![("out".into(), of("x"))];
        cat.frames = vec![SourceLine {
            file: "model.py".into(),
            line: 8,
            function: "forward".into(),
            text: "cat(…)".into(),
        }];
        let dict = Arg::Dict(vec![("k".into(), of("cat")), ("n".into(), of("absent"))]);
        let mut graph = Graph::new("M.forward");
        graph.root.children = vec![
            node(Kind::Input, "x", &[]),
            linear,
            split,
            cat,
            node(Kind::Output, "output", &[dict]),
        ];
        graph
    }
}
