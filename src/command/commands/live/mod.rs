//! `graphpatch live`: looks at a program that listens, and patches it while it runs.
//!
//! | file | owns |
//! |---|---|
//! | `processes` | which processes listen, and which one is meant |
//! | `connection` | requests out, answers in |
//! | `asks` | what each command asks, and how its answer is shown |
//! | `watch` | the statistics of a value, again for each new value |

mod asks;
pub mod connection;
pub mod processes;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::voice::{Stop, print};

const EXAMPLES: &str = "\
Examples:
  graphpatch run --live -- ./server model.pt                  in one terminal; then in another one:
  graphpatch live                                             which processes listen
  graphpatch live tree                                        the names that the next run has
  graphpatch live patch 'layers_0.mlp.output[..., 0]=zero'    its number is printed
  graphpatch live off 1
  graphpatch live 4711 watch layers_0.mlp.output              of one process among several";

/// Look at a running program, and patch it: one that `graphpatch run --live` started, or that listens itself
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Live {
    /// The process; may be left out where only one listens
    pid: Option<u32>,
    /// Print what the process answered, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the NodePath trees; records the next run first if none was recorded
    Tree {
        /// Only what lies below this node
        path: Option<String>,
        /// Only so many levels
        #[arg(long, value_name = "N")]
        depth: Option<usize>,
    },
    /// Patch a value, from the next run on: PATH[SLICE]=zero, =add:VALUE or =replace:VALUE
    Patch {
        #[arg(value_name = "PATCH")]
        patch: String,
    },
    /// Keep the last value of a node
    Probe { path: String },
    /// Keep every value of a node: PATH, or PATH:LIMIT for the first LIMIT ones
    Record {
        #[arg(value_name = "PATH[:LIMIT]")]
        path: String,
    },
    /// Switch a patch off; it keeps its number and its place
    Off { number: u64 },
    /// Switch a patch on again
    On { number: u64 },
    /// Take a patch, probe or record away
    Remove { number: u64 },
    /// Show what a probe or record has kept
    Value {
        number: u64,
        /// Value number I of a record, from 0 on, instead of the last one
        #[arg(long, value_name = "I")]
        index: Option<u64>,
        /// Also the first N elements
        #[arg(long, value_name = "N", default_value_t = 0)]
        elements: usize,
    },
    /// List the patches: how often each was met, applied, and failed
    Counts,
    /// What a person should know of the runs so far
    Notes,
    /// Write everything that is kept to a safetensors file
    Save { file: PathBuf },
    /// Print the statistics of a value as runs come by, until interrupted
    Watch {
        path: String,
        /// End after so many lines
        #[arg(long, value_name = "N")]
        times: Option<u64>,
    },
    /// Take away everything that came by `graphpatch live`; the process listens no more
    Stop,
}

impl Live {
    pub fn run(self) -> Result<u8, Stop> {
        let Some(command) = self.command else {
            return processes::list(self.pid, self.json);
        };
        let mut connection = processes::choose(self.pid)?;
        if let Command::Watch { path, times } = &command {
            return watch::watch(&mut connection, path, *times, self.json);
        }
        let answer = asks::ask(&mut connection, &command)?;
        print(&match self.json {
            true => connection.said,
            false => asks::text(&command, &answer)?,
        })?;
        Ok(0)
    }
}
