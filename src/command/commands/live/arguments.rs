//! The commands of `graphpatch live`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum Command {
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
    /// The same, and take every hook away: the program runs as it did before `graphpatch attach`
    Detach,
}
