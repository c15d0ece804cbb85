//! Calls from the session to libtorch, for one thread: the dispatch key, and the node of a backward pass.

use super::seam_generated as raw;
use super::table::started;
use graphpatch_session::thread::Edge;

/// The adapter, as the session sees it.
#[derive(Debug)]
pub(crate) struct Adapter;

fn call<T>(pick: impl FnOnce(&raw::GpAdapter) -> Option<unsafe extern "C" fn() -> T>) -> Option<T> {
    let call = pick(started()?)?;
    // SAFETY: a call of the adapter's table that takes nothing.
    Some(unsafe { call() })
}

impl Edge for Adapter {
    fn arm(&self, on: bool) {
        if let Some(arm) = started().and_then(|adapter| adapter.arm) {
            // SAFETY: the table's call.
            unsafe { arm(on.into()) };
        }
    }

    fn suspend(&self) -> u32 {
        call(|adapter| adapter.suspend).unwrap_or(0)
    }

    fn resume(&self, before: u32) {
        if let Some(resume) = started().and_then(|adapter| adapter.resume) {
            // SAFETY: the table's call, with what `suspend` gave.
            unsafe { resume(before) };
        }
    }

    fn node(&self) -> usize {
        call(|adapter| adapter.node).map_or(0, |node| node.addr())
    }
}
