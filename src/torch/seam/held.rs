//! What the adapter keeps alive for a run, as the session holds it.

use std::ffi::c_void;
use std::sync::Arc;

use super::guard::guard;
use crate::table::started;
use graphpatch_session::held::{Address, Held};
use graphpatch_session::thread;

/// An object of the adapter's, given back once.
#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: the adapter changes the object on its run's thread alone (held_leave, held_end), and frees it on any (seam.h).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Held for Handle {
    fn address(&self) -> Address {
        Address(self.0)
    }

    fn leave(&self, frame: u32) {
        if let Some(leave) = started().and_then(|adapter| adapter.held_leave) {
            // SAFETY: a live handle of the adapter's, on its run's own thread (`Held`).
            unsafe { leave(self.0, frame) };
        }
    }

    fn end(&self) {
        if let Some(end) = started().and_then(|adapter| adapter.held_end) {
            // SAFETY: as above.
            unsafe { end(self.0) };
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(free) = started().and_then(|adapter| adapter.held_free) {
            // SAFETY: the handle is the adapter's own, given back once.
            unsafe { free(self.0) };
        }
    }
}

pub(super) unsafe extern "C" fn hold(held: *mut c_void) {
    guard((), || thread::hold(Arc::new(Handle(held))));
}
