//! Patches that were taken away before any run reached them.

use std::collections::HashSet;
use std::sync::Arc;

use graphpatch_core::patch::{Patch, Reached};

/// How many are remembered: a long-lived program may take away any number of patches.
const KEPT: usize = 100;

/// The removed patches of a session that no run has reached, in the order of their removal.
#[derive(Debug, Default)]
pub(crate) struct MissedPatches(Vec<MissedPatch>);

#[derive(Debug)]
struct MissedPatch {
    text: String,
    /// A run that had begun before may still reach the patch.
    reached: Arc<Reached>,
}

impl MissedPatch {
    /// Whether no run can reach it any more: the patch itself is gone.
    fn is_settled(&self) -> bool {
        Arc::strong_count(&self.reached) == 1
    }
}

impl MissedPatches {
    /// Remembers those of the removed patches that no run has reached.
    pub(crate) fn remember(&mut self, gone: &[Arc<Patch>]) {
        self.0.retain(|patch| patch.reached.missed());
        let settled = self.0.iter().filter(|patch| patch.is_settled());
        let settled: HashSet<String> = settled.map(|patch| patch.text.clone()).collect();
        for patch in gone.iter().filter(|patch| patch.reached().missed()) {
            // If another patch of the same text stays missed, the text is reported anyway.
            if self.0.len() < KEPT && !settled.contains(&patch.text) {
                self.0.push(MissedPatch {
                    text: patch.text.clone(),
                    reached: patch.reached().clone(),
                });
            }
        }
    }

    /// The texts of those that no run has reached up to now.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &String> {
        let missed = self.0.iter().filter(|patch| patch.reached.missed());
        missed.map(|patch| &patch.text)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
