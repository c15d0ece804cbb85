//! What the user wants changed: kinds of patches and their text.
//!
//! A patch comes in as text (`text.rs`), from a file or through the C ABI, always as a [`PatchSpec`]; its path is
//! checked against a graph by [`crate::graph::check()`], and the session holds what comes of it.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod number;
pub mod plan;
pub mod text;

use serde::{Deserialize, Serialize};

pub use number::Number;
pub use plan::{OnError, Patch, PatchCounts, Plan, Step, Target};

use crate::path::{NodePath, Slice};

/// What is done to the slice of a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sets it to 0.
    Zero,
    /// Adds to it.
    Add(Number),
    /// Writes into it.
    Replace(Number),
}

/// One patch: what to do, and to which part of which value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchSpec {
    /// The value; never the root.
    pub path: NodePath,
    /// The part of it; without items, all of it.
    #[serde(default, skip_serializing_if = "Slice::is_whole")]
    pub slice: Slice,
    pub kind: Kind,
}
