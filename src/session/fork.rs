//! What a session does in a forked child. Its locks are free there (`graphpatch_locks`).

use std::sync::atomic::Ordering;

use crate::Session;
use crate::flat;
use crate::recorded::Recorded;

impl Session {
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
