//! The graphs that a session has recorded, one for each root.

use std::sync::Arc;

use crate::record::Tape;
use graphpatch_core::graph::Graph;

/// The graphs of all roots, and, at the same index, the tapes of each root's latest runs that differ, newest last.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) graphs: Vec<Graph>,
    pub(crate) tapes: Vec<Vec<Arc<Tape>>>,
    /// The number of times that nodes were added, and what that number was when source lines were last looked up.
    pub(crate) changes: u64,
    pub(crate) read: u64,
}

impl Recorded {
    pub(crate) fn find(&self, root: &str) -> Option<usize> {
        self.graphs.iter().position(|graph| graph.name == root)
    }

    /// Whether a path that is in no graph is surely wrong. This is not known while a root's first run goes on and its graph
    /// holds only a part that another thread computed.
    pub(crate) fn knows_names(&self) -> bool {
        !self.graphs.is_empty() && self.graphs.iter().all(|graph| graph.runs > 0)
    }
}
