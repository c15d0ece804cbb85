//! What the user wants changed: kinds of patches and their text.
//!
//! A patch comes in as text (`text.rs`), from a file (`toml.rs`) or through the C ABI as a [`PatchSpec`]; its path is
//! checked against a graph by [`crate::graph::check()`], and the session holds the action that is made of it
//! (`action.rs`).

pub mod action;
pub mod kept;
pub mod plan;
mod registered;
pub mod runs;
mod target;
pub mod text;
pub mod toml;
pub mod value;
mod wild;

use serde::{Deserialize, Serialize};

pub use crate::tensor::Number;
pub use plan::Plan;
pub use registered::{OnError, Patch, PatchCounts, PatchMemory, Reached};
pub use runs::RunRange;
pub use target::{Step, Target, Targets};
pub use value::Value;

use crate::path::{NodePath, Slice};

/// What is done with the slice of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sets it to 0.
    Zero,
    /// Adds to it.
    Add(Value),
    /// Writes into it.
    Replace(Value),
    /// Keeps a copy of the last value.
    Probe,
    /// Keeps a copy of every value, or of the first `limit`.
    Record { limit: Option<u64> },
}

impl Kind {
    /// Whether this keeps values and changes none.
    pub fn keeps(&self) -> bool {
        matches!(self, Kind::Probe | Kind::Record { .. })
    }

    /// What is added or written.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Kind::Add(value) | Kind::Replace(value) => Some(value),
            Kind::Zero | Kind::Probe | Kind::Record { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn value_mut(&mut self) -> Option<&mut Value> {
        match self {
            Kind::Add(value) | Kind::Replace(value) => Some(value),
            Kind::Zero | Kind::Probe | Kind::Record { .. } => None,
        }
    }
}

/// One patch: what to do, to which part of which value, and in which runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchSpec {
    /// The value; never the root.
    pub path: NodePath,
    /// The part of it; without items, all of it. Probes and records have none.
    #[serde(default, skip_serializing_if = "Slice::is_whole")]
    pub slice: Slice,
    pub kind: Kind,
    /// The text of a patch does not say them; a patch file does.
    #[serde(default, skip_serializing_if = "RunRange::is_all")]
    pub runs: RunRange,
}

impl PatchSpec {
    /// A patch of this kind at the whole value, in all runs.
    pub fn whole(path: NodePath, kind: Kind) -> PatchSpec {
        PatchSpec {
            path,
            slice: Slice::whole(),
            kind,
            runs: RunRange::default(),
        }
    }
}
