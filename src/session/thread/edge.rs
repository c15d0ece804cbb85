//! Calls from the session to the side that knows libtorch, for a thread.

use graphpatch_core::error::{Error, Result};
use graphpatch_locks::OnceLock;

/// What only the side that knows libtorch can do for a thread.
pub trait Edge: Send + Sync {
    /// Sets whether operations of this thread are intercepted from now on.
    fn arm(&self, on: bool);
    /// Lets all operations of this thread pass, also inside an operation that is intercepted. Returns the state before.
    fn suspend(&self) -> u32;
    /// Restores the state that [`Edge::suspend`] returned.
    fn resume(&self, before: u32);
    /// The node of a backward pass that this thread computes, or 0.
    fn node(&self) -> usize;
}

/// Set when the adapter has started; for the life of the process.
static EDGE: OnceLock<&'static dyn Edge> = OnceLock::new();

/// Called when the adapter has started.
pub fn set_edge(edge: &'static dyn Edge) {
    EDGE.get_or_init(|| edge);
}

pub(super) fn edge(act: impl FnOnce(&dyn Edge)) {
    if let Some(edge) = EDGE.get() {
        act(*edge);
    }
}

/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub(super) fn ready() -> Result<()> {
    match EDGE.get() {
        Some(_) => Ok(()),
        None => Err(not_started()),
    }
}

/// The error for a call that needs the adapter before it has started.
pub fn not_started() -> Error {
    Error::Torch(
        "no session was attached to libtorch in this process yet, nor was the adapter loaded"
            .into(),
    )
}
