//! What a user opens: recording, patches, and the graphs of all runs. Here record and patch meet.
//!
//! States: *off* (nothing wanted), *recording*, *patching* (or both), and *disabled* after a bug of ours. One session
//! at a time is attached to the process; a call of a root asks for it once ([`Run::begin`]) and keeps what it found
//! (the plan, whether it records) until the call ends. So a change takes effect from the next run.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod ops;
pub mod run;
pub mod scope;

#[cfg(test)]
mod run_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex, RwLock};

use crate::error::{Error, Result};
use crate::graph::{self, Graph};
use crate::patch::action::{Action, NewPatch};
use crate::patch::{OnError, Patch, PatchCounts, PatchSpec, Plan};
use crate::tensor::HostTensor;
use crate::record::Tape;

pub use run::{Run, ValueKind};
pub use scope::{Root, Scope};

/// An [`Active`] as a number; the adapter reads it before anything else.
pub static ACTIVE: AtomicU32 = AtomicU32::new(Active::Detached as u32);

/// Whether runs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Active {
    Detached = 0,
    /// A session is attached that neither records nor patches.
    Idle = 1,
    Wanted = 2,
}

fn set_active(active: Active) {
    ACTIVE.store(active as u32, Ordering::Relaxed);
}

/// The session that runs belong to.
static ATTACHED: RwLock<Option<Arc<Session>>> = RwLock::new(None);

/// Set after a bug of ours was caught; nothing is recorded or patched any more.
static DISABLED: AtomicBool = AtomicBool::new(false);

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

type Observer = Box<dyn Fn(bool) + Send + Sync>;

/// The graph of one root, and the tapes of its latest different runs, newest last.
struct Recorded {
    graph: Graph,
    tapes: Vec<Tape>,
}

/// How many different runs of a root are remembered to be told apart from new ones.
const TAPES: usize = 16;

/// See [`Session::hold`].
pub struct Held {
    _patches: ArcMutexGuard<RawMutex, Vec<Arc<Patch>>>,
    _graphs: ArcMutexGuard<RawMutex, Vec<Recorded>>,
    _notes: ArcMutexGuard<RawMutex, Vec<String>>,
}

/// A user's session. All calls may be made from any thread.
#[derive(Default)]
pub struct Session {
    recording: AtomicBool,
    surveying: AtomicBool,
    on_error: Mutex<OnError>,
    plan: RwLock<Option<Arc<Plan>>>,
    patches: Arc<Mutex<Vec<Arc<Patch>>>>,
    next_patch: AtomicU64,
    /// Numbers at which open sets of patches begin.
    sets: Mutex<Vec<u64>>,
    /// How many runs of each root have begun.
    begun: Mutex<FxHashMap<String, u64>>,
    graphs: Arc<Mutex<Vec<Recorded>>>,
    notes: Arc<Mutex<Vec<String>>>,
    runs: AtomicU64,
    observer: RwLock<Option<Observer>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// The attached session, if there is one and nothing went wrong.
pub fn attached() -> Option<Arc<Session>> {
    if DISABLED.load(Ordering::Relaxed) {
        return None;
    }
    ATTACHED.read().clone()
}

/// Stops everything for good, after a bug of ours: the host goes on as if we were not there.
pub fn disable(why: &str) {
    if let Some(session) = attached() {
        session.note(&format!(
            "an internal error ended recording and patching: {why}"
        ));
    }
    DISABLED.store(true, Ordering::Relaxed);
    set_active(Active::Detached);
}

impl Session {
    /// A session that is off and attached to nothing.
    pub fn open() -> Arc<Session> {
        Arc::new(Session::default())
    }

    /// Makes this the session that runs belong to. The adapter is [`crate::torch::attach`]'s business.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when another session is attached.
    pub fn make_current(self: &Arc<Self>) -> Result<()> {
        let mut current = ATTACHED.write();
        match &*current {
            Some(other) if !Arc::ptr_eq(other, self) => Err(Error::State(
                "another session is attached to this process; close it first".into(),
            )),
            _ => {
                *current = Some(self.clone());
                drop(current);
                self.update_active();
                Ok(())
            }
        }
    }

    /// Lets go of the process. Runs that are under way end as they began.
    pub fn detach(self: &Arc<Self>) {
        let mut current = ATTACHED.write();
        if current
            .as_ref()
            .is_some_and(|other| Arc::ptr_eq(other, self))
        {
            *current = None;
            set_active(Active::Detached);
        }
    }

    fn update_active(self: &Arc<Self>) {
        let current = ATTACHED.read();
        if current
            .as_ref()
            .is_some_and(|other| Arc::ptr_eq(other, self))
        {
            let wanted = self.is_recording() || self.plan.read().is_some();
            let wanted = wanted && !DISABLED.load(Ordering::Relaxed);
            set_active(if wanted { Active::Wanted } else { Active::Idle });
        }
    }

    pub fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Whether runs from now on are recorded into the graphs.
    pub fn set_recording(self: &Arc<Self>, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
        self.update_active();
    }

    /// Whether the first run of each root is recorded even when recording is off, so that a patch that never matched
    /// can be told the names that were there.
    pub fn set_surveying(&self, on: bool) {
        self.surveying.store(on, Ordering::Relaxed);
    }

    /// What a patch that cannot be applied does, for runs from now on.
    pub fn set_on_error(self: &Arc<Self>, on_error: OnError) {
        *self.on_error.lock() = on_error;
        let patches = self.patches.lock();
        self.rebuild(&patches);
    }

    fn rebuild(self: &Arc<Self>, patches: &[Arc<Patch>]) {
        let enabled: Vec<_> = patches.iter().filter(|p| p.is_enabled()).cloned().collect();
        let plan = (!enabled.is_empty())
            .then(|| Arc::new(Plan::new(enabled, *self.on_error.lock())));
        *self.plan.write() = plan;
        self.update_active();
    }

    /// The plan of runs that begin now; `None` without patches.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.read().clone()
    }

    /// Registers a patch behind those that are there, from the next run on. Returns its number.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] when graphs were recorded and the path names no leaf in any of them; what
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
        {
            let graphs = self.graphs();
            if !graphs.is_empty() {
                graph::check(&graphs, std::slice::from_ref(&patch.path))?;
            }
        }
        let mut patches = self.patches.lock();
        let id = self.next_patch.fetch_add(1, Ordering::Relaxed) + 1;
        patches.push(Arc::new(Patch::new(id, patch)));
        self.rebuild(&patches);
        Ok(id)
    }

    /// Takes a patch away, from the next run on. What it kept stays with those who hold it.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch.
    pub fn remove_patch(self: &Arc<Self>, id: u64) -> Result<()> {
        let mut patches = self.patches.lock();
        let before = patches.len();
        patches.retain(|patch| patch.id != id);
        if patches.len() == before {
            return Err(unknown(id));
        }
        self.rebuild(&patches);
        Ok(())
    }

    /// Switches a patch off or on again without forgetting it or its place, from the next run on.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch.
    pub fn enable_patch(self: &Arc<Self>, id: u64, on: bool) -> Result<()> {
        let patches = self.patches.lock();
        let patch = patches.iter().find(|patch| patch.id == id);
        patch.ok_or_else(|| unknown(id))?.set_enabled(on);
        self.rebuild(&patches);
        Ok(())
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
        let mut patches = self.patches.lock();
        patches.retain(|patch| patch.id < set);
        self.rebuild(&patches);
        Ok(())
    }

    /// What probes and records have kept so far, in the order of registration.
    pub fn kept(&self) -> Vec<KeptValues> {
        let patches = self.patches.lock();
        let kept = patches.iter().filter_map(|patch| match &patch.patch.action {
            Action::Keep(kept) => Some(KeptValues {
                id: patch.id,
                path: patch.patch.path.to_string(),
                record: kept.keeps_all(),
                values: kept.values(),
                dropped: kept.dropped(),
            }),
            _ => None,
        });
        kept.collect()
    }

    /// The same as a list of tensors under the keys that files give them: the path for a probe, `PATH#0`, `PATH#1` and
    /// so on for a record.
    pub fn kept_by_key(&self) -> Vec<(String, Arc<HostTensor>)> {
        let mut out: Vec<(String, Arc<HostTensor>)> = Vec::new();
        for kept in self.kept() {
            for (index, value) in kept.values.into_iter().enumerate() {
                let key = match kept.record {
                    true => format!("{}#{index}", kept.path),
                    false => kept.path.clone(),
                };
                out.push((key, value));
            }
        }
        out
    }

    /// What became of each patch so far, in the order of registration.
    pub fn patch_counts(&self) -> Vec<PatchCounts> {
        self.patches.lock().iter().map(|p| p.counts()).collect()
    }

    /// A copy of everything recorded so far, one graph for each root.
    pub fn graphs(&self) -> Vec<Graph> {
        let graphs = self.graphs.lock();
        graphs
            .iter()
            .map(|recorded| recorded.graph.clone())
            .collect()
    }

    /// How many runs began and ended.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// What a person should know: what was lost, what was left alone. Each note once.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    pub fn note(&self, text: &str) {
        let mut notes = self.notes.lock();
        if !notes.iter().any(|note| note == text) {
            notes.push(text.to_owned());
        }
    }

    /// Called after each run; `true` if the run changed a graph.
    pub fn set_observer(&self, observer: Box<dyn Fn(bool) + Send + Sync>) {
        *self.observer.write() = Some(observer);
    }

    /// Before a fork, on the forking thread: waits until no other thread is inside the session, and keeps it so while
    /// the guard lives. Without it the child could inherit a lock whose owner does not exist there.
    pub fn hold(&self) -> Held {
        Held {
            _patches: self.patches.lock_arc(),
            _graphs: self.graphs.lock_arc(),
            _notes: self.notes.lock_arc(),
        }
    }

    /// In a forked child: graphs and counts begin afresh, patches stay.
    pub fn reset_after_fork(&self) {
        self.graphs.lock().clear();
        self.notes.lock().clear();
        self.runs.store(0, Ordering::Relaxed);
        self.begun.lock().clear();
        for patch in self.patches.lock().iter() {
            patch.reset();
        }
    }

    /// The number of a run of `root` that begins now, from 0 on.
    fn next_run(&self, root: &str) -> u64 {
        let mut begun = self.begun.lock();
        match begun.get_mut(root) {
            Some(count) => {
                *count += 1;
                *count - 1
            }
            None => {
                begun.insert(root.to_owned(), 1);
                0
            }
        }
    }

    /// A tape for a run of `root`, if that run is to be recorded.
    fn new_tape(&self, root: &str) -> Option<Tape> {
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
    fn finish(&self, root: &Root, tape: Option<Tape>) {
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
