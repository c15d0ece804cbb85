//! The session's patches: registered, taken away, switched, in sets; and what probes and records have kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Session, live, missed};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph;
use graphpatch_core::patch::action::{Action, NewPatch};
use graphpatch_core::patch::kept::Kept;
use graphpatch_core::patch::{Patch, PatchCounts, PatchSpec, Plan};
use graphpatch_core::path::{NodePath, Pattern};
use graphpatch_core::tensor::HostTensor;
use graphpatch_cuda as cuda;

/// What one probe or record has kept.
#[derive(Clone, Debug)]
pub struct KeptValues {
    /// The patch's number.
    pub id: u64,
    /// Its path as text.
    pub path: String,
    /// Every value in order, rather than the last one.
    pub record: bool,
    pub values: Vec<Arc<HostTensor>>,
    /// How many values came after a record's limit was reached.
    pub dropped: u64,
}

fn unknown(id: u64) -> Error {
    Error::State(format!(
        "there is no patch number {id}: it was removed, or never registered"
    ))
}

/// The patch of this number. Numbers rise, and patches stand in the order of registration.
fn find(patches: &[Arc<Patch>], id: u64) -> Result<&Arc<Patch>> {
    let at = patches.binary_search_by_key(&id, |patch| patch.id);
    at.ok()
        .and_then(|at| patches.get(at))
        .ok_or_else(|| unknown(id))
}

/// Refuses paths that are no valid pattern, and probes and records of several nodes.
fn check_patterns(patches: &[NewPatch]) -> Result<()> {
    for patch in patches
        .iter()
        .filter(|patch| patch.path.names_are_pattern())
    {
        let pattern: Pattern = patch.path.to_string().parse()?;
        if matches!(patch.action, Action::Keep(_)) {
            return Err(Error::Refused(format!(
                "{pattern}: a probe or record keeps the values of one node, and a pattern means several; register one for \
                 each path that the graph finds"
            )));
        }
    }
    Ok(())
}

impl Session {
    /// Called after the patches have changed. The plan is made anew when the next run begins, so that many changes in a row
    /// cost only one plan. Returns the old plan: it may hold the last reference to a function or tensor of the user's, so the
    /// caller drops it when it holds no lock.
    #[must_use]
    pub(super) fn rebuild(self: &Arc<Self>, patches: &[Arc<Patch>]) -> Option<Arc<Plan>> {
        let any = patches.iter().any(|patch| patch.is_enabled());
        let before = {
            let mut arranged = self.plan.write();
            (arranged.any, arranged.stale) = (any, any);
            arranged.plan.take()
        };
        self.update_active();
        before
    }

    /// The plan of runs that begin now; `None` without patches.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        {
            let arranged = self.plan.read();
            if !arranged.stale {
                return arranged.plan.clone();
            }
        }
        let patches = self.patches.lock();
        let mut arranged = self.plan.write();
        if arranged.stale {
            let enabled: Vec<_> = patches.iter().filter(|p| p.is_enabled()).cloned().collect();
            let on_error = *self.on_error.lock();
            arranged.plan = (!enabled.is_empty()).then(|| Arc::new(Plan::new(enabled, on_error)));
            arranged.stale = false;
        }
        arranged.plan.clone()
    }

    /// Registers a patch after the existing ones, from the next run on. Returns its number.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] when whole runs were recorded and the path names no leaf in any of their graphs; what
    /// [`NewPatch::from_spec`] says of a file.
    pub fn add_patch(self: &Arc<Self>, spec: PatchSpec) -> Result<u64> {
        self.add(NewPatch::from_spec(spec)?)
    }

    /// The same for a patch that no text can describe.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] as in [`Session::add_patch`].
    pub fn add(self: &Arc<Self>, patch: NewPatch) -> Result<u64> {
        let ids = self.add_all(vec![patch])?;
        ids.first()
            .copied()
            .ok_or_else(|| Error::Internal("a patch got no number".into()))
    }

    /// The same for several patches, in order: a run begins with all of them or with none.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] names all bad paths, [`Error::Parse`] the first text that is no pattern, [`Error::Refused`] the first
    /// probe or record at a pattern; then none is registered.
    pub fn add_all(self: &Arc<Self>, new: Vec<NewPatch>) -> Result<Vec<u64>> {
        check_patterns(&new)?;
        {
            let recorded = self.recorded.lock();
            if recorded.knows_names() {
                let paths: Vec<_> = new.iter().map(|patch| patch.path.clone()).collect();
                graph::check(&recorded.graphs, &paths)?;
            }
        }
        for note in new.iter().filter_map(|patch| self.shared(&patch.path)) {
            self.note(&note);
        }
        let mut patches = self.patches.lock();
        let first = patches.len();
        for patch in new {
            let id = self.next_patch.fetch_add(1, Ordering::Relaxed) + 1;
            patches.push(Arc::new(Patch::new(id, patch)));
        }
        let added: Vec<_> = patches.iter().skip(first).cloned().collect();
        let before = self.rebuild(&patches);
        drop(patches);
        drop(before);
        // A graph capture may come next, and nothing can be loaded during one.
        if self.is_attached() {
            cuda::warm(&added);
        }
        Ok(added.iter().map(|patch| patch.id).collect())
    }

    /// What to say of a path without a root that several of the recorded roots have.
    pub fn shared(&self, path: &NodePath) -> Option<String> {
        graph::shared_note(&self.recorded.lock().graphs, path)
    }

    /// Takes a patch away, from the next run on. What it kept stays with those who hold it.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch.
    pub fn remove_patch(self: &Arc<Self>, id: u64) -> Result<()> {
        self.remove_all(&[id])
    }

    /// The same for several patches: a run begins with all of them or with none.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is one that is not registered; the others are taken away.
    pub fn remove_all(self: &Arc<Self>, ids: &[u64]) -> Result<()> {
        let asked: HashSet<u64> = ids.iter().copied().collect();
        let gone = self.take_away(|patch| asked.contains(&patch.id))?;
        let gone: HashSet<u64> = gone.into_iter().collect();
        match ids.iter().find(|id| !gone.contains(id)) {
            Some(id) => Err(unknown(*id)),
            None => Ok(()),
        }
    }

    /// Removes the patches that `which` selects, and returns their numbers. What they hold is dropped when no lock is held: a
    /// function of the user's may use the session while it is dropped.
    fn take_away(self: &Arc<Self>, which: impl Fn(&Patch) -> bool) -> Result<Vec<u64>> {
        let mut patches = self.patches.lock();
        for patch in patches.iter().filter(|patch| which(patch)) {
            live::switch(patch, false)?;
        }
        let all = std::mem::take(&mut *patches);
        let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|patch| which(patch));
        *patches = left;
        let before = match gone.is_empty() {
            true => None,
            false => self.rebuild(&patches),
        };
        drop(patches);
        drop(before);
        if gone.iter().any(|patch| patch.reached().missed()) {
            self.missed.lock().remember(&gone);
        }
        Ok(gone.iter().map(|patch| patch.id).collect())
    }

    /// The patches that no run has reached so far, as text, each text once: first those that were removed (at most a hundred),
    /// then those that are registered, in the order of registration.
    pub fn missed(&self) -> Vec<String> {
        let mut missed: Vec<String> = self.missed.lock().texts().cloned().collect();
        let registered = self.patches.lock();
        let registered = registered.iter().filter(|patch| patch.reached().missed());
        missed.extend(registered.map(|patch| patch.text.clone()));
        let mut told = HashSet::new();
        missed.retain(|text| told.insert(text.clone()));
        missed
    }

    /// Switches a patch off or on again without forgetting it or its place, from the next run on.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch.
    pub fn enable_patch(self: &Arc<Self>, id: u64, on: bool) -> Result<()> {
        let patches = self.patches.lock();
        let patch = find(&patches, id)?;
        live::switch(patch, on)?;
        patch.set_enabled(on);
        let before = self.rebuild(&patches);
        drop(patches);
        drop(before);
        Ok(())
    }

    /// Switches patches off, all at once: a run begins with all of them or with none. Numbers of patches that are gone are
    /// passed over.
    pub fn disable_all(self: &Arc<Self>, ids: &[u64]) {
        let patches = self.patches.lock();
        for id in ids {
            if let Ok(patch) = find(&patches, *id) {
                patch.set_enabled(false);
                // If the device's memory cannot be written now, the next plan switches the patch off.
                let _ = live::switch(patch, false);
            }
        }
        let before = self.rebuild(&patches);
        drop(patches);
        drop(before);
    }

    /// Opens a set: patches registered from now on belong to it, until [`Session::end_set`] takes them away together.
    /// Sets nest; an outer one takes the inner ones with it.
    pub fn begin_set(&self) -> u64 {
        let mut sets = self.sets.lock();
        let mark = self.next_patch.fetch_add(1, Ordering::Relaxed) + 1;
        sets.push(mark);
        mark
    }

    /// Takes away all patches that were registered since the set was opened.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when the set is not open.
    pub fn end_set(self: &Arc<Self>, set: u64) -> Result<()> {
        let mut sets = self.sets.lock();
        let Some(at) = sets.iter().position(|mark| *mark == set) else {
            return Err(Error::State(format!(
                "there is no open set number {set}: it was ended, or an outer one was"
            )));
        };
        sets.truncate(at);
        drop(sets);
        self.take_away(|patch| patch.id >= set).map(drop)
    }

    /// What probes and records have kept so far, in the order of registration.
    pub fn kept(&self) -> Vec<KeptValues> {
        // Values may have to be read back from a device. The lock is not held for that time.
        let patches = self.patches.lock().clone();
        let kept = patches
            .iter()
            .filter_map(|patch| match &patch.patch.action {
                Action::Keep(kept) => Some(KeptValues {
                    id: patch.id,
                    path: patch.patch.path.to_string(),
                    record: kept.keeps_all(),
                    values: self.read_back(&patch.text, kept),
                    dropped: kept.dropped(),
                }),
                _ => None,
            });
        kept.collect()
    }

    /// The values that can be read. A note says how many could not be read, and why.
    fn read_back(&self, text: &str, kept: &Kept) -> Vec<Arc<HostTensor>> {
        let (good, bad): (Vec<_>, Vec<_>) =
            kept.values().into_iter().partition(|value| value.is_ok());
        if let Some(Err(why)) = bad.first() {
            self.note(&format!(
                "{} values of {text} could not be read back: {why}",
                bad.len()
            ));
        }
        good.into_iter().flatten().collect()
    }

    /// What the probe or record `id` keeps; nothing is read back from a device.
    pub fn kept_of(&self, id: u64) -> Option<Arc<Kept>> {
        let patches = self.patches.lock();
        match &find(&patches, id).ok()?.patch.action {
            Action::Keep(kept) => Some(kept.clone()),
            _ => None,
        }
    }

    /// How often a patch met its node, changed it or failed so far. If runs were under way when it was removed, or when this
    /// was asked before, this also tells what has become of it since then; if this then does not know the patch any more, a
    /// run has reached it.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch.
    pub fn counts_of(&self, id: u64) -> Result<PatchCounts> {
        {
            let patches = self.patches.lock();
            if let Ok(patch) = find(&patches, id) {
                // First, since a run that ends now has counted before.
                let pending = missed::is_pending(patch, self.plan.read().plan.as_ref());
                if pending {
                    patch.reached().await_runs();
                }
                return Ok(PatchCounts {
                    pending,
                    ..patch.counts()
                });
            }
        }
        self.missed.lock().counts_of(id).ok_or_else(|| unknown(id))
    }

    /// The numbers of the patches that are switched off.
    pub fn switched_off(&self) -> Vec<u64> {
        let patches = self.patches.lock();
        let off = patches.iter().filter(|patch| !patch.is_enabled());
        off.map(|patch| patch.id).collect()
    }

    /// The same for each patch, in the order of registration.
    pub fn patch_counts(&self) -> Vec<PatchCounts> {
        self.patches.lock().iter().map(|p| p.counts()).collect()
    }
}
