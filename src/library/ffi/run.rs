//! Runs and scopes that a program marks itself, for models that are plain operations (C++).

use std::ffi::c_char;
use std::sync::atomic::Ordering;

use super::arguments::text;
use super::{Status, guard};
use graphpatch_session::{self as session, thread};
use graphpatch_torch as torch;

/// Whether a session is attached that records or patches. It costs no more than reading a number, so a program asks
/// before it prepares the arguments of gp_run_open and of the calls that follow it.
///
/// Thread: any. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_runs_wanted() -> bool {
    session::ACTIVE.load(Ordering::Relaxed) == session::Active::Wanted as u32
}

/// Begins a run on this thread: until gp_run_end, operations that the thread calls are nodes of the root `name`. Does
/// nothing while no attached session records or patches. GP_STATUS_STATE when a run is open on this thread. This and
/// the three calls below answer GP_STATUS_TORCH before any session was attached.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_begin(name: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| torch::run_begin(unsafe { text(name, "name") }?))
}

/// Ends this thread's run, and the scopes that are open in it. Without one it does nothing.
///
/// Thread: its own. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_run_end() -> Status {
    guard(thread::end_run)
}

/// Says that a call begins on this thread of which nothing is wanted (`on`), or that it has ended: what runs in it is no
/// run of its own, whatever other threads ask for meanwhile. To be called where gp_runs_wanted() answers false or
/// gp_run_open() wants nothing, as often with false as with true; such calls may be nested. TorchScript modules, which
/// begin runs by themselves, need it. Other hosts may leave it out.
///
/// Thread: its own. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_run_decline(on: bool) -> Status {
    guard(|| {
        thread::decline(on);
        Ok(())
    })
}

/// Enters the scope of a module, called by the attribute path `path` ("layers.8") from the scope around it. Does
/// nothing outside a run. What is more than 1,000 scopes deep is neither recorded nor patched; the session has a note then.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_enter(path: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| torch::scope_enter(unsafe { text(path, "path") }?))
}

/// Leaves the innermost scope that gp_scope_enter entered. Does nothing outside a run.
///
/// Thread: its own. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_scope_leave() -> Status {
    guard(thread::close_scope)
}
