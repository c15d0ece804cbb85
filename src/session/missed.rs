//! Patches that were taken away before any run reached them.

use std::collections::HashSet;
use std::sync::Arc;

use graphpatch_core::patch::{Patch, PatchCounts, Plan, Reached};

/// How many are remembered: a long-lived program may take away any number of patches.
const KEPT: usize = 100;

/// Whether runs are under way that may reach a registered patch or an earlier version of it. `plan` is that of runs that
/// begin now.
pub(crate) fn is_pending(patch: &Arc<Patch>, plan: Option<&Arc<Plan>>) -> bool {
    let has_it = |plan: &&Arc<Plan>| plan.patches.iter().any(|other| Arc::ptr_eq(other, patch));
    let plan = plan.filter(has_it);
    // The session holds each of them once.
    let own = 1 + usize::from(plan.is_some());
    plan.is_some_and(|plan| Arc::strong_count(plan) > 1) || is_held(patch, own)
}

/// Whether someone else than the caller, who has `own` references to the patch, holds it or an earlier version of it.
fn is_held(patch: &Arc<Patch>, own: usize) -> bool {
    Arc::strong_count(patch) > own || Arc::strong_count(patch.reached()) > 1
}

/// The removed patches of a session that no run has reached, in the order of their removal.
#[derive(Debug, Default)]
pub(crate) struct MissedPatches(Vec<MissedPatch>);

#[derive(Debug)]
struct MissedPatch {
    id: u64,
    text: String,
    /// A run that had begun before may still reach the patch.
    reached: Arc<Reached>,
    /// Whether there was such a run when the patch was removed, or when someone asked for its counts, who may ask again.
    awaited: bool,
}

impl MissedPatch {
    /// Whether no run can reach it any more: the patch itself is gone.
    fn is_settled(&self) -> bool {
        Arc::strong_count(&self.reached) == 1
    }
}

impl MissedPatches {
    /// Remembers those of the removed patches that no run has reached. The caller and runs that are under way are all who have
    /// references to them.
    pub(crate) fn remember(&mut self, gone: &[Arc<Patch>]) {
        self.0
            .retain(|patch| patch.reached.missed() || !patch.is_settled());
        let settled = self.0.iter().filter(|patch| patch.is_settled());
        let settled: HashSet<String> = settled.map(|patch| patch.text.clone()).collect();
        for patch in gone.iter().filter(|patch| patch.reached().missed()) {
            let awaited = patch.reached().is_awaited() || is_held(patch, 1);
            // If another patch of the same text stays missed, the text is reported anyway.
            if awaited || (self.0.len() < KEPT && !settled.contains(&patch.text)) {
                self.0.push(MissedPatch {
                    id: patch.id,
                    text: patch.text.clone(),
                    reached: patch.reached().clone(),
                    awaited,
                });
            }
        }
    }

    /// The counts of an awaited patch that was removed before any run had reached it. `None` for any other, and, when no run
    /// can reach it any more, for one that was reached.
    pub(crate) fn counts_of(&self, id: u64) -> Option<PatchCounts> {
        let patch = self
            .0
            .iter()
            .find(|patch| patch.id == id && patch.awaited)?;
        let pending = !patch.is_settled(); // first, since a run that ends now has counted before
        Some(PatchCounts {
            pending,
            ..patch.reached.counts(id, &patch.text)
        })
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
