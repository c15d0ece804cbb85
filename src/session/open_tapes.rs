//! The flat runs that are under way, as a report sees them: their tapes are read while their threads write them.

use std::sync::Arc;
use std::time::Duration;

use graphpatch_core::graph::Graph;
use graphpatch_locks::Mutex;

use crate::record::Tape;
use crate::scope::Root;

/// How long a report waits for a tape that is being written. Its writer may be the thread that reports, from a signal handler.
const PATIENCE: Duration = Duration::from_millis(50);

/// The open tapes of one session, which keeps them behind a lock.
#[derive(Default)]
pub(crate) struct OpenTapes {
    runs: u64,
    tapes: Vec<(Arc<Root>, Arc<Mutex<Tape>>)>,
}

impl OpenTapes {
    pub fn begin_run(&mut self) {
        self.runs += 1;
    }

    pub fn end_run(&mut self) {
        self.runs = self.runs.saturating_sub(1);
    }

    /// How many flat runs are under way, recorded or not.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// A run of `root` is recorded on the tape from now on.
    pub fn add(&mut self, root: Arc<Root>, tape: Arc<Mutex<Tape>>) {
        self.tapes.push((root, tape));
    }

    pub fn remove(&mut self, tape: &Arc<Mutex<Tape>>) {
        self.tapes.retain(|(_, other)| !Arc::ptr_eq(other, tape));
    }

    /// The root of the tape's run has learned of other modules.
    pub fn set_root(&mut self, tape: &Arc<Mutex<Tape>>, root: &Arc<Root>) {
        for (known, _) in self
            .tapes
            .iter_mut()
            .filter(|open| Arc::ptr_eq(&open.1, tape))
        {
            *known = root.clone();
        }
    }

    /// A copy of the list, to be read without the session's lock (by [`add_to`]).
    pub fn tapes(&self) -> Vec<(Arc<Root>, Arc<Mutex<Tape>>)> {
        self.tapes.clone()
    }
}

/// Adds what the runs have recorded so far. Returns the indexes of the graphs that it was added to.
pub(crate) fn add_to(
    graphs: &mut Vec<Graph>,
    tapes: Vec<(Arc<Root>, Arc<Mutex<Tape>>)>,
) -> Vec<usize> {
    let mut changed = Vec::new();
    for (root, tape) in tapes {
        let copy = tape.try_lock_for(PATIENCE).map(|tape| tape.clone());
        let Some(tape) = copy else { continue };
        let part = Graph {
            root: tape.tree(&root.scope.class_name).into(),
            runs: 1,
            ..Graph::new(root.name.as_str())
        };
        match graphs.iter().position(|graph| graph.name == root.name) {
            Some(at) => {
                graphs[at].merge_open(part);
                changed.push(at);
            }
            None => {
                changed.push(graphs.len());
                graphs.push(part);
            }
        }
    }
    changed
}
