//! The session that a user opens: its settings, its graphs, its notes, and its observer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use graphpatch_locks::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::arranged::Arranged;
use crate::graphs::Recorded;
use crate::missed::MissedPatches;
use crate::open_tapes::{self, OpenTapes};
use crate::record::Source;
use crate::times::{Span, Timeline};
use graphpatch_core::graph::{Graph, SourceLine};
use graphpatch_core::patch::{OnError, Patch};
use graphpatch_native::{SourceReader, Stack};

type Observer = Arc<dyn Fn(News) + Send + Sync>;
type Once = Box<dyn FnOnce() + Send>;
type SourceFunction = Box<dyn Fn() -> Vec<SourceLine> + Send + Sync>;

/// What an observer is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Only counts have changed.
    Counts,
    /// A graph has changed.
    Grown,
    /// A graph has changed, and its run records nothing more. There may be no other news of this thread's.
    Last,
}

/// Whether the source lines of runs that are under way are read. Files' debug information is read anew each time, since the
/// nodes of such a run are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenLines {
    Read,
    Skip,
}

/// A user's session. All calls may be made from any thread.
#[derive(Default)]
pub struct Session {
    /// Opened by `graphpatch run` in the program that it starts.
    pub(crate) for_command: bool,
    pub(crate) recording: AtomicBool,
    pub(crate) surveying: AtomicBool,
    /// Whether the inside of attention is shown.
    pub(crate) inside: AtomicBool,
    /// Whether the patches have been uploaded to the devices that the process uses.
    pub(crate) warmed: AtomicBool,
    pub(crate) on_error: Mutex<OnError>,
    pub(crate) plan: RwLock<Arranged>,
    pub(crate) patches: Mutex<Vec<Arc<Patch>>>,
    pub(crate) next_patch: AtomicU64,
    /// Numbers at which open sets of patches begin.
    pub(crate) sets: Mutex<Vec<u64>>,
    /// How many runs of each root have begun.
    pub(crate) begun: Mutex<FxHashMap<String, u64>>,
    pub(crate) recorded: Mutex<Recorded>,
    pub(crate) notes: Mutex<Vec<String>>,
    /// What notes were about that were announced by a number; see [`Session::first_note`].
    pub(crate) noted: Mutex<FxHashSet<u64>>,
    pub(crate) missed: Mutex<MissedPatches>,
    pub(crate) runs: AtomicU64,
    /// Flat runs that are under way.
    pub(crate) open: Mutex<OpenTapes>,
    pub(crate) timeline: Timeline,
    /// How often the process was forked off.
    pub(crate) epoch: AtomicU64,
    pub(crate) observer: RwLock<Option<Observer>>,
    pub(crate) before_first_run: Mutex<Option<Once>>,
    pub(crate) source: RwLock<Option<Arc<SourceFunction>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Whether the times of runs from now on are kept, for [`Session::take_times`].
    pub fn set_timing(&self, on: bool) {
        self.timeline.set(on);
    }

    /// What happened since the last call: run by run, not sorted by time.
    pub fn take_times(&self) -> Vec<Span> {
        let (spans, lost) = self.timeline.take();
        if lost {
            self.note(
                "the trace is not complete: a run had more operations than were kept at a time",
            );
        }
        spans
    }

    /// A session that is off and attached to nothing.
    pub fn open() -> Arc<Session> {
        Arc::new(Session::default())
    }

    /// The same for `graphpatch run`; such a session can be attached beside one of the program's own.
    pub fn open_for_command() -> Arc<Session> {
        Arc::new(Session {
            for_command: true,
            ..Session::default()
        })
    }

    /// Whether it was attached from outside of the program, beside the program's own.
    pub fn is_for_command(&self) -> bool {
        self.for_command
    }

    pub fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Whether a run that begins now may be recorded or patched.
    pub(crate) fn wants_runs(&self) -> bool {
        self.is_recording() || self.plan.read().any
    }

    /// Whether runs from now on are recorded into the graphs.
    pub fn set_recording(self: &Arc<Self>, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
        self.update_active();
    }

    /// Sets whether the first run of each root is recorded even when recording is off. Its names are needed to say what a patch
    /// that never matched could have meant.
    pub fn set_surveying(&self, on: bool) {
        self.surveying.store(on, Ordering::Relaxed);
    }

    /// Sets what happens, in runs from now on, if a patch cannot be applied.
    pub fn set_on_error(self: &Arc<Self>, on_error: OnError) {
        *self.on_error.lock() = on_error;
        let patches = self.patches.lock();
        let before = self.rebuild(&patches);
        drop(patches);
        drop(before);
    }

    /// A copy of everything recorded so far, one graph for each root. The call may take a while, since it looks up the source
    /// lines of all nodes that are new since the last call.
    pub fn graphs(&self) -> Vec<Graph> {
        self.graphs_so_far(OpenLines::Read)
    }

    /// The same; runs that are under way may go without their source lines.
    pub fn graphs_so_far(&self, lines: OpenLines) -> Vec<Graph> {
        let mut reader = SourceReader::default();
        let (mut graphs, changes, is_read) = {
            let recorded = self.recorded.lock();
            let is_read = recorded.read == recorded.changes;
            (recorded.graphs.clone(), recorded.changes, is_read)
        };
        if !is_read {
            // Files are read while no lock is held.
            for graph in &mut graphs {
                reader.read(graph);
            }
            let recorded = &mut *self.recorded.lock();
            if recorded.changes == changes {
                for (known, read) in recorded.graphs.iter_mut().zip(&graphs) {
                    known.root = read.root.clone();
                }
                recorded.read = changes;
            }
        }
        let open = self.open.lock().tapes();
        let changed = open_tapes::add_to(&mut graphs, open);
        if lines == OpenLines::Read {
            for at in changed {
                reader.read(&mut graphs[at]);
            }
        }
        graphs
    }

    /// How many runs have begun and ended; flat runs are counted when they begin.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed) + self.open.lock().runs()
    }

    /// Notes for the user: what was lost, and what was left alone. Each note once.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().clone();
        notes.extend(crate::memory::note().map(str::to_owned));
        notes
    }

    pub fn note(&self, text: &str) {
        let mut notes = self.notes.lock();
        if !notes.iter().any(|note| note == text) {
            notes.push(text.to_owned());
        }
    }

    /// Whether this is the first call with this number: the note that the number stands for is worth its text. The session
    /// forgets the numbers when there are too many; a note that comes again is told once nevertheless.
    pub fn first_note(&self, about: u64) -> bool {
        const KEPT: usize = 1000;
        let mut noted = self.noted.lock();
        if noted.len() >= KEPT {
            noted.clear();
        }
        noted.insert(about)
    }

    pub(crate) fn observe(&self, news: News) {
        // The observer may write files. Neither another thread nor a fork waits for that, since no lock is held.
        let observer = self.observer.read().clone();
        if let Some(observer) = observer {
            observer(news);
        }
    }

    /// Called after each run, and now and then in a flat one.
    pub fn set_observer(&self, observer: Observer) {
        let before = self.observer.write().replace(observer);
        drop(before);
    }

    /// Sets a function that is called once, on the thread of the first run that is wanted, right before that run begins. It may
    /// change all settings of the session.
    pub fn set_before_first_run(&self, action: Once) {
        let before = self.before_first_run.lock().replace(action);
        drop(before);
    }

    pub(crate) fn run_begins(&self) {
        // No lock is held while it is called.
        let action = self.before_first_run.lock().take();
        if let Some(action) = action {
            action();
        }
    }

    /// Sets the function that says where in the user's source the thread is, innermost frame last. It is called while
    /// recording, and only for nodes that were not recorded before.
    pub fn set_source(&self, source: Option<SourceFunction>) {
        let before = std::mem::replace(&mut *self.source.write(), source.map(Arc::new));
        drop(before);
    }

    /// Whether such a function is set, which means that the host reports calls of modules.
    pub fn has_source(&self) -> bool {
        self.source.read().is_some()
    }

    /// Where in the user's source this thread is: what the host's function says or, without one, the native stack. In a
    /// TorchScript module (`script`) only the host's function is asked, since TorchScript's own lines tell more than the native
    /// stack.
    pub(crate) fn source(&self, script: bool) -> Source {
        let asked = self.source.read().clone();
        let stack = match asked {
            None if !script => Stack::here(),
            _ => Stack::default(),
        };
        let frames = asked.map_or_else(Vec::new, |asked| asked());
        Source { stack, frames }
    }

    /// The number of a run of `root` that begins now, from 0 on.
    pub(crate) fn next_run(&self, root: &str) -> u64 {
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
