//! Flat runs, which hold the operations of programs that report no module calls. The adapter drives them.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use super::seam_generated as raw;
use super::table::{adapter, missing};
use graphpatch_core::error::Result;

/// Whether some threads have flat runs. If so, the adapter is loaded.
static STARTED: AtomicBool = AtomicBool::new(false);

/// From now on the operations of this thread, and of threads that call [`flat_thread`], are in flat runs. A new run begins at
/// each call of an operation in `run_at`; if that is empty, a run is as long as its thread. Called once.
///
/// # Errors
///
/// [`Error::Torch`] before any session was attached.
pub fn flat_start(run_at: &[String]) -> Result<()> {
    let start = adapter()?.flat_start;
    let start = start.ok_or_else(missing)?;
    let names: Vec<raw::GpStr> = run_at
        .iter()
        .map(|name| raw::GpStr {
            data: name.as_ptr().cast(),
            size: name.len(),
        })
        .collect();
    // SAFETY: the table's call; the names are lent for it.
    unsafe { start(names.as_ptr(), names.len()) };
    STARTED.store(true, Ordering::Release);
    Ok(())
}

/// Whether [`flat_start`] was called.
pub fn is_flat() -> bool {
    STARTED.load(Ordering::Acquire)
}

fn call(pick: impl FnOnce(&raw::GpAdapter) -> Option<unsafe extern "C" fn()>) {
    if is_flat()
        && let Ok(adapter) = adapter()
        && let Some(call) = pick(adapter)
    {
        // SAFETY: a call of the adapter's table that takes nothing.
        unsafe { call() };
    }
}

/// Puts this thread's operations in flat runs, if [`flat_start`] was called.
pub fn flat_thread() {
    call(|adapter| adapter.flat_thread);
}

/// This process is a forked child, so the run of its thread begins anew.
pub fn flat_forked() {
    call(|adapter| adapter.flat_forked);
}

/// Lives during a call in which libtorch does work of the host's own, which is not recorded.
pub struct OwnCall {
    /// The `torch::nn::Module` that the call is made on, or NULL. It lives at least as long as the call.
    module: *const c_void,
}

impl OwnCall {
    /// # Safety
    ///
    /// `module` is NULL or a `torch::nn::Module` that is alive until the call is dropped.
    pub unsafe fn enter(module: *const c_void) -> OwnCall {
        if let Ok(adapter) = adapter()
            && let Some(enter) = adapter.own_enter
        {
            // SAFETY: a call of the adapter's table that takes nothing.
            unsafe { enter() };
        }
        OwnCall { module }
    }
}

impl Drop for OwnCall {
    fn drop(&mut self) {
        if let Ok(adapter) = adapter()
            && let Some(leave) = adapter.own_leave
        {
            // SAFETY: the table's call; the module is alive, by the contract of `enter`.
            unsafe { leave(self.module) };
        }
    }
}
