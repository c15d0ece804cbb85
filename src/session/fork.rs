//! What a session does around a fork of its process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{ArcMutexGuard, RawMutex};
use rustc_hash::FxHashMap;

use crate::Session;
use crate::flat;
use crate::recorded::Recorded;
use graphpatch_core::patch::Patch;

/// See [`Session::hold`].
pub struct Held {
    _patches: ArcMutexGuard<RawMutex, Vec<Arc<Patch>>>,
    _recorded: ArcMutexGuard<RawMutex, Recorded>,
    _notes: ArcMutexGuard<RawMutex, Vec<String>>,
    _begun: ArcMutexGuard<RawMutex, FxHashMap<String, u64>>,
    _open: ArcMutexGuard<RawMutex, flat::Open>,
}

impl Session {
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
}
