//! The adapter's table of calls, after the adapter has started.

use std::fmt::Debug;

use super::seam_generated as raw;
use graphpatch_core::error::{Error, Result};
use graphpatch_locks::OnceLock;
use graphpatch_session::thread::not_started;

/// Set once, when the adapter has started, and kept as long as the process lives. It is read without a lock, because every
/// value and scope of a host is looked up here.
static ADAPTER: OnceLock<Adapter> = OnceLock::new();

struct Adapter {
    table: &'static raw::GpAdapter,
    /// The library that contains the table. It is never unloaded; kept here so that leak checkers find a reference to it.
    _library: &'static (dyn Debug + Send + Sync),
}

// SAFETY: the table is constant; its calls may be made from any thread (seam.h).
unsafe impl Send for Adapter {}
// SAFETY: as above.
unsafe impl Sync for Adapter {}

/// The adapter's table, if it has started.
pub(crate) fn started() -> Option<&'static raw::GpAdapter> {
    ADAPTER.get().map(|adapter| adapter.table)
}

/// The adapter's table.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter was loaded.
pub(crate) fn adapter() -> Result<&'static raw::GpAdapter> {
    started().ok_or_else(not_started)
}

/// Makes the table public. Called when the adapter in this library has started.
pub(crate) fn publish(table: &'static raw::GpAdapter, library: &'static (dyn Debug + Send + Sync)) {
    ADAPTER.get_or_init(|| Adapter {
        table,
        _library: library,
    });
}

/// The error for a call that the adapter's table lacks.
pub(crate) fn missing() -> Error {
    Error::Internal("the adapter lacks a call".into())
}
