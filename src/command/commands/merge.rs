//! `graphpatch merge`: the graphs that the ranks of a program have saved, as one.

use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_core::error::Error;
use graphpatch_core::file_error::unreadable;
use graphpatch_core::graph::{Graph, GraphFile, RankGraphs, Value, merge_ranks};
use graphpatch_core::path::{Glob, NodePath};

use crate::voice::{Stop, print};

/// One graph of those that the ranks of a program have saved
///
/// Equal nodes stand once. Where the ranks differ in a shape, or only some of them have a node, the node says so with the rank;
/// a value that lies on several ranks (a DTensor, or a rank's part of one) has its global shape and its placement.
#[derive(Args)]
pub struct Merge {
    /// Graphs saved by `graphpatch run --graph`, one of each rank; or a pattern such as 'g.rank*.json'
    #[arg(required = true)]
    graphs: Vec<PathBuf>,
    /// Where the graph is saved
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Merge {
    pub fn run(self) -> Result<u8, Stop> {
        let mut files = Vec::new();
        for graph in &self.graphs {
            files.extend(expand(graph)?);
        }
        let output = std::path::absolute(&self.output).ok();
        if files
            .iter()
            .any(|file| std::path::absolute(file).ok() == output)
        {
            let file = self.output.display();
            return Err(Stop::usage(format!(
                "{file}: it is one of the graphs to be merged; name another file by -o"
            )));
        }
        let merged = merge(&files)?;
        merged.save(&self.output)?;
        print(&differences(&merged.graphs)).map(|()| 0)
    }
}

/// The graphs of a file; of a pattern of files, such as `g.rank*.json`, those of all ranks as one.
///
/// # Errors
///
/// A file cannot be read, is no graph, or nothing has the pattern.
pub fn load(file: &Path) -> Result<GraphFile, Stop> {
    match expand(file)?.as_slice() {
        [one] => Ok(GraphFile::load(one)?),
        several => merge(several),
    }
}

fn merge(files: &[PathBuf]) -> Result<GraphFile, Stop> {
    let ranks: Result<Vec<RankGraphs>, Error> = files
        .iter()
        .map(|file| {
            Ok(RankGraphs {
                rank: rank_of(file),
                graphs: GraphFile::load(file)?.graphs,
            })
        })
        .collect();
    Ok(GraphFile::new(merge_ranks(ranks?)))
}

/// The rank in the file's name; the name itself where it has none.
fn rank_of(file: &Path) -> String {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    match name.rsplit_once(".rank") {
        Some((_, rank)) if !rank.is_empty() => rank.to_owned(),
        _ => name.into_owned(),
    }
}

/// The files that a pattern means, in the order of their ranks; a file that is there stands for itself.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, Stop> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    if pattern.exists() || !name.contains(['*', '?', '[', '{']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let shown = pattern.display();
    let glob = Glob::new(&name, true).map_err(|why| Stop::usage(format!("{shown}: {why}")))?;
    let folder = match pattern.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|why| unreadable(pattern, &why))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            file.is_file() && glob.is_match(&name)
        })
        .collect();
    found.sort_by_key(|file| {
        let rank = rank_of(file);
        (rank.parse().unwrap_or(u64::MAX), rank)
    });
    match found.is_empty() {
        true => Err(Stop::usage(format!("{shown}: no file has such a name"))),
        false => Ok(found),
    }
}

/// What differs between the ranks, one node a line.
fn differences(graphs: &[Graph]) -> String {
    let mut text = String::new();
    for graph in graphs {
        let mut lines = Vec::new();
        differing(graph, &NodePath::root(), &mut lines);
        if graphs.len() > 1 && !lines.is_empty() {
            text += &format!("# {}\n", graph.name);
        }
        text += &lines.concat();
    }
    text
}

fn differing(graph: &Graph, scope: &NodePath, lines: &mut Vec<String>) {
    for path in graph.below(scope).unwrap_or_default() {
        match graph.value(&path).as_deref() {
            Some(Value::Tensor(info)) => {
                if let Some((_, ranks)) = info.layout.split_once("; ") {
                    lines.push(format!("{path}: {ranks}\n"));
                }
            }
            _ => differing(graph, &path, lines),
        }
    }
}
