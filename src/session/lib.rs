//! What a user opens: recording, patches, and the graphs of all runs. Here record and patch meet.
//!
//! States: *off* (nothing wanted), *recording*, *patching* (or both), and *disabled* after a bug of ours. One session of
//! the program's own at a time is attached to the process, and beside it that of `graphpatch run`; a call of a root asks
//! for them once ([`Run::begin`]) and keeps what it found (the plan, whether it records) until the call ends. So a change
//! takes effect from the next run.
#![forbid(unsafe_code)]

mod device;
pub mod flat;
pub mod keyed;
mod live;
pub mod ops;
pub mod patches;
pub mod record;
mod recorded;
pub mod run;
pub mod scope;
pub mod verdict;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod flat_tests;
#[cfg(test)]
mod run_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex, RwLock};

use crate::record::Source;
use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph::{Frame, Graph};
use graphpatch_core::patch::{OnError, Patch, Plan};
use graphpatch_native::{SourceReader, Stack};

use recorded::Recorded;

pub use keyed::{Keyed, keyed};
pub use patches::KeptValues;
pub use run::{OWN_RUNS, Run, ValueKind};
pub use scope::{Root, Scope};
pub use verdict::Verdict;

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

/// The sessions that runs belong to.
static ATTACHED: RwLock<Attached> = RwLock::new(Attached {
    program: None,
    command: None,
});

/// A run is the program's own session's, or, where that wants nothing of it, the command's.
#[derive(Clone)]
struct Attached {
    program: Option<Arc<Session>>,
    command: Option<Arc<Session>>,
}

impl Attached {
    fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.program.iter().chain(&self.command)
    }

    fn slot(&mut self, session: &Session) -> &mut Option<Arc<Session>> {
        match session.for_command {
            true => &mut self.command,
            false => &mut self.program,
        }
    }

    /// Says in [`ACTIVE`] what they want.
    fn tell(&self) {
        let wants =
            |session: &Arc<Session>| session.is_recording() || session.plan.read().is_some();
        set_active(if is_disabled() || self.all().next().is_none() {
            Active::Detached
        } else if self.all().any(wants) {
            Active::Wanted
        } else {
            Active::Idle
        });
    }
}

/// Set after a bug of ours was caught; nothing is recorded or patched any more.
static DISABLED: AtomicBool = AtomicBool::new(false);

type Observer = Box<dyn Fn(News) + Send + Sync>;
type Asked = Box<dyn Fn() -> Vec<Frame> + Send + Sync>;

/// What an observer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Only counts have changed.
    Counts,
    /// A graph has.
    Grown,
    /// The same, and nothing more may come of this thread.
    Last,
}

fn is_disabled() -> bool {
    DISABLED.load(Ordering::Relaxed)
}

/// See [`Session::hold`].
pub struct Held {
    _patches: ArcMutexGuard<RawMutex, Vec<Arc<Patch>>>,
    _recorded: ArcMutexGuard<RawMutex, Recorded>,
    _notes: ArcMutexGuard<RawMutex, Vec<String>>,
    _begun: ArcMutexGuard<RawMutex, FxHashMap<String, u64>>,
    _open: ArcMutexGuard<RawMutex, flat::Open>,
}

/// A user's session. All calls may be made from any thread.
#[derive(Default)]
pub struct Session {
    /// Opened by `graphpatch run` in the program that it starts.
    for_command: bool,
    recording: AtomicBool,
    surveying: AtomicBool,
    on_error: Mutex<OnError>,
    plan: RwLock<Option<Arc<Plan>>>,
    patches: Arc<Mutex<Vec<Arc<Patch>>>>,
    next_patch: AtomicU64,
    /// Numbers at which open sets of patches begin.
    sets: Mutex<Vec<u64>>,
    /// How many runs of each root have begun.
    begun: Arc<Mutex<FxHashMap<String, u64>>>,
    recorded: Arc<Mutex<Recorded>>,
    notes: Arc<Mutex<Vec<String>>>,
    runs: AtomicU64,
    /// Flat runs that are under way.
    open: Arc<Mutex<flat::Open>>,
    /// How often the process was forked off.
    epoch: AtomicU64,
    observer: RwLock<Option<Observer>>,
    source: RwLock<Option<Arc<Asked>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// The attached session, if there is one and nothing went wrong: the program's own before the command's.
pub fn attached() -> Option<Arc<Session>> {
    attached_ones().all().next().cloned()
}

fn attached_ones() -> Attached {
    if is_disabled() {
        return Attached {
            program: None,
            command: None,
        };
    }
    ATTACHED.read().clone()
}

/// Tells what concerns every run to all sessions that may have had it.
pub fn note(text: &str) {
    for session in attached_ones().all() {
        session.note(text);
    }
}

/// Stops everything for good, after a bug of ours: the host goes on as if we were not there.
pub fn disable(why: &str) {
    note(&format!(
        "an internal error ended recording and patching: {why}"
    ));
    DISABLED.store(true, Ordering::Relaxed);
    set_active(Active::Detached);
}

impl Session {
    /// A session that is off and attached to nothing.
    pub fn open() -> Arc<Session> {
        Arc::new(Session::default())
    }

    /// The same for what `graphpatch run` wants of a program: it leaves room for a session of the program's own.
    pub fn open_for_command() -> Arc<Session> {
        Arc::new(Session {
            for_command: true,
            ..Session::default()
        })
    }

    /// Makes this the session that runs belong to. The adapter is [`graphpatch_torch::attach`]'s business.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when another session is attached that is not the command's.
    pub fn make_current(self: &Arc<Self>) -> Result<()> {
        let mut attached = ATTACHED.write();
        let slot = attached.slot(self);
        if slot.as_ref().is_some_and(|other| !Arc::ptr_eq(other, self)) {
            return Err(Error::State(
                "another session is attached to this process; close it first".into(),
            ));
        }
        *slot = Some(self.clone());
        attached.tell();
        Ok(())
    }

    /// Lets go of the process. Runs that are under way end as they began.
    pub fn detach(self: &Arc<Self>) {
        let mut attached = ATTACHED.write();
        let slot = attached.slot(self);
        if slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, self)) {
            *slot = None;
            attached.tell();
        }
    }

    /// Whether runs belong to this session.
    fn is_attached(self: &Arc<Self>) -> bool {
        let attached = ATTACHED.read();
        attached.all().any(|other| Arc::ptr_eq(other, self))
    }

    fn update_active(self: &Arc<Self>) {
        let attached = ATTACHED.read();
        if attached.all().any(|other| Arc::ptr_eq(other, self)) {
            attached.tell();
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

    /// A copy of everything recorded so far, one graph for each root. What is new since the last call may take a while:
    /// now its source is looked up.
    pub fn graphs(&self) -> Vec<Graph> {
        let mut reader = SourceReader::default();
        let mut graphs = {
            let recorded = &mut *self.recorded.lock();
            for graph in &mut recorded.graphs {
                reader.read(graph);
            }
            recorded.graphs.clone()
        };
        self.add_open(&mut graphs);
        for graph in &mut graphs {
            reader.read(graph);
        }
        graphs
    }

    /// How many runs began and ended; of flat ones, how many began.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed) + self.open_runs()
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

    fn observe(&self, news: News) {
        if let Some(observer) = &*self.observer.read() {
            observer(news);
        }
    }

    /// Called after each run, and now and then in a flat one.
    pub fn set_observer(&self, observer: Observer) {
        *self.observer.write() = Some(observer);
    }

    /// Who says where in the user's source the thread is, innermost frame last. Asked while recording, and only for
    /// nodes that were not recorded before.
    pub fn set_source(&self, source: Option<Asked>) {
        *self.source.write() = source.map(Arc::new);
    }

    /// Whether somebody says so: then a host tells of its modules.
    pub fn has_source(&self) -> bool {
        self.source.read().is_some()
    }

    /// Where in the user's source this thread is: as the host says, else its native stack. In a TorchScript module
    /// (`script`), whose own lines tell more, only what the host says.
    fn source(&self, script: bool) -> Source {
        let asked = self.source.read().clone();
        let stack = match asked {
            None if !script => Stack::here(),
            _ => Stack::default(),
        };
        let frames = asked.map_or_else(Vec::new, |asked| asked());
        Source { stack, frames }
    }

    /// Before a fork, on the forking thread: waits until no other thread is inside the session, and keeps it so while
    /// the guard lives. Without it the child could inherit a lock whose owner does not exist there.
    pub fn hold(&self) -> Held {
        Held {
            _patches: self.patches.lock_arc(),
            _recorded: self.recorded.lock_arc(),
            _notes: self.notes.lock_arc(),
            _begun: self.begun.lock_arc(),
            _open: self.open.lock_arc(),
        }
    }

    /// In a forked child: graphs and counts begin afresh, patches stay.
    pub fn reset_after_fork(&self) {
        *self.recorded.lock() = Recorded::default();
        self.notes.lock().clear();
        self.runs.store(0, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        *self.open.lock() = flat::Open::default();
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
}
