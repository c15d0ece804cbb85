//! Whether memory for this library could not be allocated. The allocator calls this, so nothing here takes a lock or allocates.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether that has happened.
static OUT_OF_MEMORY: AtomicBool = AtomicBool::new(false);

pub(crate) fn note_lost() {
    OUT_OF_MEMORY.store(true, Ordering::Relaxed);
}

/// The note about it, if it has happened.
pub(crate) fn note() -> Option<&'static str> {
    const NOTE: &str =
        "the program ran out of memory: from then on nothing was recorded or patched";
    OUT_OF_MEMORY.load(Ordering::Relaxed).then_some(NOTE)
}
