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

/// From now on calls of modules are told of by [`ModuleCall`]. Does nothing if a run begins at operations that the user named, and
/// before [`flat_start`].
pub fn modules_start() {
    call(|adapter| adapter.modules_start);
}

/// Lives during a call of the forward function of a `torch::nn::Module`.
pub struct ModuleCall {
    /// 0: the call is none of a known module.
    number: u64,
}

impl ModuleCall {
    /// `module` may be any address. It is only compared with those of known modules.
    pub fn enter(module: usize) -> ModuleCall {
        let enter = || adapter().ok()?.module_enter;
        let number = match enter() {
            // SAFETY: the table's call takes any address.
            Some(enter) => unsafe { enter(std::ptr::without_provenance(module)) },
            None => 0,
        };
        ModuleCall { number }
    }

    /// Whether the module is known, and its call belongs to the thread's flat run.
    pub fn is_known(&self) -> bool {
        self.number != 0
    }

    /// The call's number, 0 if it is none of a known module. The call stays open until it is taken over and dropped.
    pub fn keep(self) -> u64 {
        let number = self.number;
        std::mem::forget(self);
        number
    }

    pub fn take_over(number: u64) -> ModuleCall {
        ModuleCall { number }
    }

    /// Shows what the call returns, which a patch may replace. If it is not `sure` that this is a tensor, it is one only if an
    /// operation has given it lately.
    ///
    /// # Safety
    ///
    /// `tensor` points to a live `at::Tensor`, or to another word if it is not `sure`. Nobody else reads or writes it meanwhile.
    pub unsafe fn output(&self, tensor: *mut c_void, sure: bool) {
        if let Ok(adapter) = adapter()
            && let Some(output) = adapter.module_output
        {
            // SAFETY: the table's call, with the tensor of the contract.
            unsafe { output(self.number, tensor, sure.into()) };
        }
    }
}

impl Drop for ModuleCall {
    fn drop(&mut self) {
        if self.is_known()
            && let Ok(adapter) = adapter()
            && let Some(leave) = adapter.module_leave
        {
            // SAFETY: the table's call, with the number that it gave.
            unsafe { leave(self.number) };
        }
    }
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
