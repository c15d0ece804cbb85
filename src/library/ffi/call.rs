//! Calls of modules that a host tells of: a run opens, scopes open in it and close, and a part of a run is done again.

use std::ffi::c_void;

use super::arguments::{answer, list};
use super::handle::{Handle, Shared, free, give, share, share_or_none};
use super::module::{gp_root, gp_scope};
use super::session::gp_session;
use super::slots::Kind;
use super::{Status, guard};
use graphpatch_core::error::Result;
use graphpatch_session::thread::{self, Opened};
use graphpatch_session::{Snapshot, Wants};
use graphpatch_torch as torch;

/// Where a run stood, for a part of it that is computed again. Any thread. Since 0.1.0.
pub struct gp_snapshot {
    _opaque: [u8; 0],
}

impl Handle for gp_snapshot {
    const NAME: &'static str = "snapshot";
    const KIND: Kind = Kind::Snapshot;
    type Value = Snapshot;
    type Owner = Shared;
}

/// What is wanted of a run or a scope, as bits of a number. From bit 16 on the number holds the scope's place among the
/// patches, counted from 1: equal places of a session whose patches did not change get equal answers. Since 0.1.0.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum gp_wants {
    /// Show its inputs: gp_scope_input.
    Inputs = 1,
    /// Show its output: gp_scope_output.
    Output = 2,
    /// Something in it or below it matters: report calls in it.
    Inside = 4,
    /// Of a run: gp_run_parameters.
    Parameters = 8,
    /// The run is recorded.
    Record = 16,
    /// Its operations are intercepted. Report calls in it, whether they matter or not.
    Operations = 32,
    /// No call of this module from the same scope matters, as long as the patches stay as they are.
    Ignored = 64,
}

// The header's numbers are the session's.
const _: () = {
    assert!(gp_wants::Inputs as u32 == Wants::INPUTS);
    assert!(gp_wants::Output as u32 == Wants::OUTPUT);
    assert!(gp_wants::Inside as u32 == Wants::INSIDE);
    assert!(gp_wants::Parameters as u32 == Wants::PARAMETERS);
    assert!(gp_wants::Record as u32 == Wants::RECORD);
    assert!(gp_wants::Operations as u32 == Wants::OPERATIONS);
    assert!(gp_wants::Ignored as u32 == Wants::IGNORED);
    assert!(Wants::SITE_SHIFT == 16);
};

fn wants(wants: Option<Wants>) -> u32 {
    wants.map_or(0, Wants::for_hosts)
}

/// Begins a run of `root` on this thread, until gp_run_end, for `session`, or for the attached one if that is NULL.
/// `wants` receives bits of gp_wants; 0: nothing is wanted, and no run began (gp_run_end must not be called). `plan`
/// (may be NULL) receives a number that changes with the patches that runs begin with; 0 without any. A run of a named
/// session suspends one that is open on this thread; where nothing is wanted of it, what it does is the open run's.
/// GP_STATUS_STATE where a run is open and `session` is NULL; GP_STATUS_TORCH before the adapter was loaded
/// (gp_torch_load, gp_session_attach), as all calls below.
///
/// Thread: its own. NULL: session, plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `wants` and `plan` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_open(
    session: *const gp_session,
    root: *const gp_root,
    wants: *mut u32,
    plan: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share_or_none(session)?;
        let root = share(root)?;
        answer(wants, "wants", 0)?;
        let run = thread::open_run(session.as_deref(), &root)?;
        began(run, wants, plan)
    })
}

/// What a caller gets to know of a run.
///
/// # Safety
///
/// `wants` and `plan` are NULL or may be written.
unsafe fn began(run: Option<Opened>, wants: *mut u32, plan: *mut u64) -> Result<()> {
    // SAFETY: by this function's contract.
    unsafe {
        if !plan.is_null() {
            plan.write(run.map_or(0, |run| run.plan));
        }
        answer(wants, "wants", self::wants(run.map(|run| run.wants)))
    }
}

/// Which tensors the root's parameters are in this run: their at::TensorImpl, in the order of gp_root_new; NULL for one
/// that is not there. To be called after gp_run_open, where it is wanted.
///
/// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `tensors` points to `n` pointers, each NULL or to a live at::TensorImpl of this process's libtorch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_parameters(tensors: *const *const c_void, n: usize) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { torch::run_parameters(list(tensors, n, "tensors")?) })
}

/// Where this thread's run stands, for code of it that runs elsewhere: again later (activation checkpointing), or on
/// another thread. `out` receives a new snapshot, to be freed with gp_snapshot_free, or NULL outside a run.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_snapshot(out: *mut *mut gp_snapshot) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        answer(out, "out", std::ptr::null_mut())?;
        match thread::snapshot()? {
            Some(snapshot) => give(out, snapshot),
            None => Ok(()),
        }
    })
}

/// Frees a snapshot. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_snapshot_free(snapshot: *mut gp_snapshot) {
    free(snapshot);
}

/// Begins, on this thread and until gp_run_end, a run that stands where the other one stood: in the same scopes, with
/// the same names given, under the same patches. With `record`, and if the other one is recorded, what it does is added
/// to the graph. `wants` is the innermost scope's, `plan` as in gp_run_open; `wants` is 0 where nothing is wanted and
/// no run began.
///
/// Thread: its own. NULL: plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `wants` and `plan` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_resume(
    snapshot: *const gp_snapshot,
    record: bool,
    wants: *mut u32,
    plan: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let snapshot = share(snapshot)?;
        answer(wants, "wants", 0)?;
        began(thread::resume(&snapshot, record)?, wants, plan)
    })
}

/// A module is called from the innermost scope; gp_scope_leave ends the call. `wants` receives bits of gp_wants, 0
/// outside a run, and more than 1,000 scopes deep: nothing is recorded or patched there, and the session has a note.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `wants` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_open(scope: *const gp_scope, wants: *mut u32) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = share(scope)?;
        answer(wants, "wants", 0)?;
        answer(wants, "wants", self::wants(thread::open_scope(&scope)?))
    })
}

/// Instead of gp_scope_open: the next TorchScript module called on this thread, which reports its calls itself, is
/// called as `scope`, which must live so long. `depth` receives what gp_scope_unwind takes.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `scope` is NULL or live until the module's code has begun or gp_scope_unwind was called; `depth` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_script(scope: *const gp_scope, depth: *mut u32) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = share(scope)?;
        answer(depth, "depth", 0)?;
        answer(depth, "depth", thread::call_next(&scope)?)
    })
}

/// A call announced by gp_scope_script is over: leaves what an exception left open in it.
///
/// Thread: its own. Errors: GP_STATUS_TORCH. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_scope_unwind(depth: u32) -> Status {
    guard(|| thread::unwind(depth))
}
