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
    matched: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Device memory that is kept for the patch, and freed with it.
    pub resident: OnceLock<Arc<dyn PatchMemory>>,
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
            matched: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_error: Mutex::new(None),
            resident: OnceLock::new(),
        }
    }

    /// The same patch with its number, place and counts, but another action.
    pub fn with_action(&self, action: Action) -> Patch {
        let load = |counter: &AtomicU64| AtomicU64::new(counter.load(Ordering::Relaxed));
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
            matched: load(&self.matched),
            applied: load(&self.applied),
            failed: load(&self.failed),
            last_error: Mutex::new(self.last_error.lock().clone()),
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
        self.matched.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether no run has reached the patch's node so far.
    pub fn missed(&self) -> bool {
        self.matched.load(Ordering::Relaxed) == 0
    }

    pub fn count_applied(&self) {
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_failed(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(why.to_owned());
    }

    pub fn counts(&self) -> PatchCounts {
        PatchCounts {
            id: self.id,
            text: self.text.clone(),
            matched: self.matched.load(Ordering::Relaxed),
            applied: self.applied.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }

    /// After a fork: counts and kept values begin afresh.
    pub fn reset(&self) {
        if let Action::Keep(kept) = &self.patch.action {
            kept.forget();
        }
        for counter in [&self.matched, &self.applied, &self.failed] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.last_error.lock() = None;
    }
}
