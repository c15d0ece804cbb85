//! What a user wants of `graphpatch run` when the program has ended.

use std::path::PathBuf;

use graphpatch_core::patch::PatchSpec;

/// What the user wants to see when the program has ended.
pub struct Wanted {
    pub tree: bool,
    pub summary: bool,
    pub graph: Option<PathBuf>,
    pub save: Option<PathBuf>,
    pub trace: Option<PathBuf>,
    pub patches: Vec<PatchSpec>,
    pub program: String,
    pub run_at: Vec<String>,
}

impl Wanted {
    /// Whether anything of a model is to be seen or changed.
    pub fn wants_inside(&self) -> bool {
        self.tree || self.graph.is_some() || self.trace.is_some() || !self.patches.is_empty()
    }
}
