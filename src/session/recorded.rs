//! The session's graphs, which runs add to when they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{News, Root, Session};
use crate::record::Tape;
use graphpatch_core::graph::Graph;

/// How many runs of a root that differ are remembered, to tell whether a new run equals one of them.
const TAPES: usize = 16;

impl Session {
    /// A tape for a run of `root`, if that run is to be recorded.
    pub(super) fn new_tape(&self, root: &str) -> Option<Tape> {
        let surveying = self.surveying.load(Ordering::Relaxed);
        if !surveying && !self.is_recording() {
            return None;
        }
        let wanted = self.is_recording() || self.recorded.lock().find(root).is_none();
        wanted.then(|| self.part_tape(root))
    }

    /// A tape for a part of a run that is recorded.
    pub(super) fn part_tape(&self, root: &str) -> Tape {
        let recorded = self.recorded.lock();
        let known = recorded.find(root).map(|at| recorded.tapes[at].clone());
        Tape::new(known.unwrap_or_default())
    }

    /// A run ended; `tape` is what it left.
    pub(super) fn finish(&self, root: &Root, tape: Option<Tape>) {
        let changed = tape.is_some_and(|tape| self.merge(root, tape));
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.observe(match changed {
            true => News::Grown,
            false => News::Counts,
        });
    }

    /// Merges what a run has recorded so far. The run goes on, but is not recorded any more.
    pub(super) fn keep(&self, root: &Root, tape: Tape) {
        self.merge(root, tape);
    }

    /// A part of a run that another thread computed ended.
    pub(super) fn add_part(&self, root: &Root, tape: Tape) {
        let recorded = &mut *self.recorded.lock();
        recorded.changes += 1;
        let part = Graph {
            root: tape.tree(&root.scope.class_name).into(),
            ..Graph::new(root.name.as_str())
        };
        match recorded.find(&root.name) {
            Some(at) => recorded.graphs[at].merge(part),
            None => {
                recorded.graphs.push(part);
                recorded.tapes.push(Vec::new());
            }
        }
    }

    /// Merges a run into its root's graph. Returns false if the graph has an equal run already.
    fn merge(&self, root: &Root, tape: Tape) -> bool {
        let recorded = &mut *self.recorded.lock();
        let at = recorded.find(&root.name).unwrap_or_else(|| {
            recorded.graphs.push(Graph::new(root.name.as_str()));
            recorded.tapes.push(Vec::new());
            recorded.graphs.len() - 1
        });
        let (graph, tapes) = (&mut recorded.graphs[at], &mut recorded.tapes[at]);
        if tapes.iter().any(|known| **known == tape) {
            graph.runs += 1;
            return false;
        }
        recorded.changes += 1;
        graph.merge(Graph {
            root: tape.tree(&root.scope.class_name).into(),
            runs: 1,
            ..Graph::new(root.name.as_str())
        });
        if tapes.len() == TAPES {
            tapes.remove(0);
        }
        tapes.push(Arc::new(tape.forget()));
        true
    }
}
