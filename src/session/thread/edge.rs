//! What only libtorch's side can do for a thread, as the session calls it.

use graphpatch_core::error::{Error, Result};
use graphpatch_locks::OnceLock;

/// What only libtorch's side can do for a thread.
pub trait Edge: Send + Sync {
    /// Operations of this thread are intercepted from now on, or not any more.
    fn arm(&self, on: bool);
    /// Lets everything pass on this thread, also inside an operation that is intercepted. Gives what was set before.
    fn suspend(&self) -> u32;
    /// Sets what [`Edge::suspend`] gave.
    fn resume(&self, before: u32);
    /// The node of a backward pass that this thread computes, or 0.
    fn node(&self) -> usize;
}

/// Set when the adapter has started; for the life of the process.
static EDGE: OnceLock<&'static dyn Edge> = OnceLock::new();

/// The adapter has started.
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
        None => Err(Error::Torch(
            "no session was attached to libtorch in this process yet, nor was the adapter loaded"
                .into(),
        )),
    }
}
