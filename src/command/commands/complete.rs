//! `graphpatch complete`: the next names behind what is typed, one a line; and the shells' own scripts.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use graphpatch_core::graph::GraphFile;

use crate::Cli;
use crate::voice::{Stop, print};

/// The paths that complete PREFIX, one a line
#[derive(Args)]
pub struct Complete {
    /// A graph saved by `graphpatch run --graph`
    #[arg(required_unless_present = "shell")]
    graph: Option<PathBuf>,
    /// The beginning of a path
    #[arg(default_value = "")]
    prefix: String,
    /// Instead: the script with which this shell completes the options of graphpatch
    #[arg(long, value_enum, conflicts_with_all = ["graph", "prefix"])]
    shell: Option<Shell>,
}

impl Complete {
    pub fn run(self) -> Result<u8, Stop> {
        if let Some(shell) = self.shell {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "graphpatch", &mut script);
            return print(&String::from_utf8_lossy(&script)).map(|()| 0);
        }
        let mut seen = HashSet::new();
        let mut text = String::new();
        let file = self.graph.map(|file| GraphFile::load(&file)).transpose()?;
        for graph in file.into_iter().flat_map(|file| file.graphs) {
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
