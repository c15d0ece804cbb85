//! Patches: registered by text, named by number.

use std::ffi::c_char;

use super::arguments::{answer, list, text};
use super::handle::share;
use super::session::gp_session;
use super::sized::{self, Grows};
use super::{Status, guard, string};

/// How often a patch's node was reached, and how often the patch changed the value there, or could not. Since 0.1.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gp_patch_counts {
    /// To be set by the caller: sizeof(gp_patch_counts).
    pub size: usize,
    /// How often a run reached the patch's node.
    pub matched: u64,
    /// How often the patch changed (or kept, or was shown) the value there.
    pub applied: u64,
    /// How often it could not; gp_patch_last_error says why.
    pub failed: u64,
    /// 1 while runs are under way that began with the patch and may still reach it, else 0.
    pub pending: u64,
}

// SAFETY: repr(C), a usize in front, all members of eight bytes.
unsafe impl Grows for gp_patch_counts {
    const FIRST: usize = 32;
}

/// Registers a patch, `PATH[SLICE]=zero`, `...=add:VALUE` or `...=replace:VALUE`, `PATH=probe` or `PATH=record:LIMIT`,
/// after the existing ones. VALUE is as in gp_value_text. It holds for runs that begin from now on, on any thread.
/// `id` receives its number. What text cannot say, a gp_spec can.
///
/// Errors: GP_STATUS_PARSE; GP_STATUS_PATH when graphs were recorded and none has such a leaf; GP_STATUS_FILE and
/// GP_STATUS_FORMAT for a value's file.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_PATH, GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
///
/// # Safety
///
/// `patch` is NULL or a C string; `id` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_add(
    session: *const gp_session,
    patch: *const c_char,
    id: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share(session)?;
        let spec = text(patch, "patch")?.parse()?;
        answer(id, "id", 0)?;
        answer(id, "id", session.add_patch(spec)?)
    })
}

/// Removes a patch, for runs that begin from now on. GP_STATUS_STATE when there is no such patch.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_patch_remove(session: *const gp_session, id: u64) -> Status {
    guard(|| share(session)?.remove_patch(id))
}

/// Removes `n` patches at once: a run begins with all of them or with none. GP_STATUS_STATE when there is one that is
/// not registered; the others are removed nevertheless.
///
/// Thread: any. NULL: refused, but for ids where n is 0. Errors: GP_STATUS_ARGUMENT, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `ids` points to `n` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_remove_all(
    session: *const gp_session,
    ids: *const u64,
    n: usize,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share(session)?;
        if n == 0 {
            return Ok(());
        }
        session.remove_all(list(ids, n, "ids")?)
    })
}

/// Switches a patch off or on again, for runs that begin from now on; it keeps its place among the others.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_patch_enable(session: *const gp_session, id: u64, on: bool) -> Status {
    guard(|| share(session)?.enable_patch(id, on))
}

/// Opens a set: patches registered from now on belong to it, until gp_set_end removes them together. Sets nest.
/// `set` receives its number.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `set` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_set_begin(session: *const gp_session, set: *mut u64) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share(session)?;
        answer(set, "set", 0)?;
        answer(set, "set", session.begin_set())
    })
}

/// Removes all patches that were registered since the set was opened, inner sets with it. GP_STATUS_STATE when the
/// set is not open.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_set_end(session: *const gp_session, set: u64) -> Status {
    guard(|| share(session)?.end_set(set))
}

/// How often a patch was met, applied, and failed so far. If the patch was removed before a run had reached it, and runs
/// were `pending` then or when this was called before, this still tells what becomes of it; GP_STATUS_STATE then says that
/// a run has reached it, and that none of them is under way any more.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written, as many bytes as its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_get_counts(
    session: *const gp_session,
    id: u64,
    out: *mut gp_patch_counts,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        sized::check(out, "out")?;
        let counts = share(session)?.counts_of(id)?;
        let value = gp_patch_counts {
            size: 0,
            matched: counts.matched,
            applied: counts.applied,
            failed: counts.failed,
            pending: counts.pending.into(),
        };
        sized::fill(out, "out", value)
    })
}

/// Why a patch failed last; empty if it never did. `out` receives new text; free it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_last_error(
    session: *const gp_session,
    id: u64,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let why = share(session)?
            .counts_of(id)?
            .last_error
            .unwrap_or_default();
        string::give(out, "out", &why)
    })
}
