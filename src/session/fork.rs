//! What a session does in a forked child. Its locks are free there (see `graphpatch_locks`).

use std::sync::atomic::Ordering;

use crate::Session;

/// Puts a new value in the place of an old one, which is leaked.
fn forget<T: Default>(value: &mut T) {
    std::mem::forget(std::mem::take(value));
}

impl Session {
    /// In a forked child, graphs and counts begin afresh, and patches stay. The parent's recordings are leaked here: to free
    /// them would touch, and so copy, every page of them, and most children become another program at once.
    pub fn reset_after_fork(&self) {
        forget(&mut *self.recorded.lock());
        self.notes.lock().clear();
        self.noted.lock().clear();
        self.missed.lock().clear();
        self.runs.store(0, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        forget(&mut *self.open.lock());
        forget(&mut *self.timeline.runs.lock());
        self.begun.lock().clear();
        for patch in self.patches.lock().iter() {
            patch.reset();
        }
    }
}
