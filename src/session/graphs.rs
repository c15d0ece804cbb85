//! The graphs that a session has recorded, one for each root.

use std::sync::Arc;

use crate::record::Tape;
use graphpatch_core::graph::Graph;

/// The graphs of all roots; and, by the same index, the tapes of each root's latest different runs, newest last.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) graphs: Vec<Graph>,
    pub(crate) tapes: Vec<Vec<Arc<Tape>>>,
    /// How often nodes were added; and how often they had been when their source was last looked up.
    pub(crate) changes: u64,
    pub(crate) read: u64,
}

impl Recorded {
    pub(crate) fn find(&self, root: &str) -> Option<usize> {
        self.graphs.iter().position(|graph| graph.name == root)
    }

    /// Whether a path that is in no graph is a wrong one. While a root's first run goes on, and only a part of it that
    /// another thread computed is there, nobody knows.
    pub(crate) fn knows_names(&self) -> bool {
        !self.graphs.is_empty() && self.graphs.iter().all(|graph| graph.runs > 0)
    }
}
