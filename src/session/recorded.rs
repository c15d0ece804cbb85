//! The session's graphs: what ended runs have left.

use std::sync::atomic::Ordering;

use super::{Root, Session};
use crate::graph::Graph;
use crate::record::Tape;

/// The graph of one root, and the tapes of its latest different runs, newest last.
pub(super) struct Recorded {
    pub(super) graph: Graph,
    tapes: Vec<Tape>,
}

/// How many different runs of a root are remembered to be told apart from new ones.
const TAPES: usize = 16;

impl Session {
    /// A tape for a run of `root`, if that run is to be recorded.
    pub(super) fn new_tape(&self, root: &str) -> Option<Tape> {
        let surveying = self.surveying.load(Ordering::Relaxed);
        if !surveying && !self.is_recording() {
            return None;
        }
        let graphs = self.graphs.lock();
        let recorded = graphs.iter().find(|recorded| recorded.graph.name == root);
        let known = recorded.and_then(|recorded| recorded.tapes.last());
        (self.is_recording() || known.is_none()).then(|| Tape::new(known))
    }

    /// A run ended; `tape` is what it left.
    pub(super) fn finish(&self, root: &Root, tape: Option<Tape>) {
        let changed = tape.is_some_and(|tape| self.merge(root, tape));
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &*self.observer.read() {
            observer(changed);
        }
    }

    /// Merges a run into its root's graph. False if an equal one is in it already.
    fn merge(&self, root: &Root, tape: Tape) -> bool {
        let mut graphs = self.graphs.lock();
        let at = graphs.iter().position(|r| r.graph.name == root.name);
        let at = at.unwrap_or_else(|| {
            graphs.push(Recorded {
                graph: Graph::new(root.name.as_str()),
                tapes: Vec::new(),
            });
            graphs.len() - 1
        });
        let Recorded { graph, tapes } = &mut graphs[at];
        if tapes.contains(&tape) {
            graph.runs += 1;
            return false;
        }
        graph.merge(Graph {
            root: tape.tree(&root.scope.class_name),
            runs: 1,
            ..Graph::new(root.name.as_str())
        });
        if tapes.len() == TAPES {
            tapes.remove(0);
        }
        tapes.push(tape);
        true
    }
}
