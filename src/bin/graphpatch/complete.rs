//! `graphpatch complete`: the next names behind what is typed, one a line.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use graphpatch::graph::GraphFile;

use crate::{Stop, print};

/// The paths that complete PREFIX, one a line
#[derive(Args)]
pub struct Complete {
    /// A graph saved by `graphpatch run --graph`
    graph: PathBuf,
    /// The beginning of a path
    #[arg(default_value = "")]
    prefix: String,
}

impl Complete {
    pub fn run(self) -> Result<u8, Stop> {
        let mut seen = HashSet::new();
        let mut text = String::new();
        for graph in GraphFile::load(&self.graph)?.graphs {
            for path in graph.completions(&self.prefix) {
                if seen.insert(path.clone()) {
                    text += &path;
                    text.push('\n');
                }
            }
        }
        print(&text).map(|()| 0)
    }
}
