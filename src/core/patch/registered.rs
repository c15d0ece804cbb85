//! A registered patch: what it does, for which runs it holds, and how often it was applied.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use graphpatch_locks::{Mutex, OnceLock};
use serde::{Deserialize, Serialize};

use super::RunRange;
use super::action::{Action, NewPatch};
use crate::path::Slice;

/// What happens when a patch cannot be applied in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The host gets an error that it can handle.
    #[default]
    Raise,
    /// The value stays as it is, and the failure is counted.
    Skip,
}

/// What the crate that applies a patch keeps for it on a device; only that crate can look into it.
pub trait PatchMemory: Any + Send + Sync + fmt::Debug {}

/// A registered patch, and how often it was applied.
#[derive(Debug)]
pub struct Patch {
    pub id: u64,
    pub patch: NewPatch,
    /// The patch as its user would write it.
    pub text: String,
    /// The index as a slice, if it is one.
    pub slice: Option<Slice>,
    /// The patch holds only for runs on this thread; `None` means all threads.
    thread: Option<ThreadId>,
    enabled: AtomicBool,
    reached: Arc<Reached>,
    /// Device memory that is kept for the patch, and freed with it.
    pub resident: OnceLock<Arc<dyn PatchMemory>>,
}

/// How often runs reached a patch, and what happened there. It may outlive the patch: see [`Patch::reached`].
#[derive(Debug, Default)]
pub struct Reached {
    matched: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    awaited: AtomicBool,
}

impl Reached {
    /// Notes that someone was told that runs are under way which may still reach the patch.
    pub fn await_runs(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Whether no run has reached the patch's node so far.
    pub fn missed(&self) -> bool {
        self.matched.load(Ordering::Relaxed) == 0
    }

    /// The counts so far of the patch of this number and text.
    pub fn counts(&self, id: u64, text: &str) -> PatchCounts {
        PatchCounts {
            id,
            text: text.to_owned(),
            matched: self.matched.load(Ordering::Relaxed),
            applied: self.applied.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
            pending: false,
        }
    }
}

/// How often a patch met its node, changed it, or could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchCounts {
    pub id: u64,
    pub text: String,
    pub matched: u64,
    pub applied: u64,
    pub failed: u64,
    pub last_error: Option<String>,
    /// Whether runs that began with it are under way, which may still reach it. Nobody knows when a process has ended.
    #[serde(skip)]
    pub pending: bool,
}

impl Patch {
    pub fn new(id: u64, patch: NewPatch) -> Patch {
        Patch {
            id,
            text: patch.text(),
            slice: patch.slice(),
            thread: patch.this_thread.then(|| thread::current().id()),
            enabled: AtomicBool::new(true),
            patch,
            reached: Arc::default(),
            resident: OnceLock::new(),
        }
    }

    /// The same patch with its number, place and counts, but another action.
    pub fn with_action(&self, action: Action) -> Patch {
        let patch = NewPatch {
            action,
            ..self.patch.clone()
        };
        Patch {
            id: self.id,
            text: patch.text(),
            slice: self.slice.clone(),
            patch,
            thread: self.thread,
            enabled: AtomicBool::new(self.is_enabled()),
            reached: self.reached.clone(),
            resident: self.resident.clone(),
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn set_enabled(&self, on: bool) {
        self.enabled.store(on, Ordering::Relaxed);
    }

    /// Whether it holds for some runs or roots only.
    pub(super) fn is_conditional(&self) -> bool {
        self.thread.is_some()
            || self.patch.runs != RunRange::default()
            || self.patch.path.root.is_some()
    }

    /// Whether it holds for run number `run` of this root, on this thread.
    pub fn holds(&self, root: &str, run: u64) -> bool {
        self.thread
            .is_none_or(|thread| thread == thread::current().id())
            && self.patch.runs.contains(run)
            && self.patch.path.means(root)
    }

    pub fn count_match(&self) {
        self.reached.matched.fetch_add(1, Ordering::Relaxed);
    }

    /// Shared, so that it can be read after the patch was taken away: a run that began before may still reach the patch.
    pub fn reached(&self) -> &Arc<Reached> {
        &self.reached
    }

    pub fn count_applied(&self) {
        self.reached.applied.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_failed(&self, why: &str) {
        self.reached.failed.fetch_add(1, Ordering::Relaxed);
        *self.reached.last_error.lock() = Some(why.to_owned());
    }

    pub fn counts(&self) -> PatchCounts {
        self.reached.counts(self.id, &self.text)
    }

    /// After a fork: counts and kept values begin afresh.
    pub fn reset(&self) {
        if let Action::Keep(kept) = &self.patch.action {
            kept.forget();
        }
        let reached = &self.reached;
        for counter in [&reached.matched, &reached.applied, &reached.failed] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.reached.last_error.lock() = None;
    }
}
