//! From specs to patches: for which runs a spec holds, and its registration.

use std::ffi::c_char;

use super::arguments::{answer, list, null, text, wrong};
use super::handle::{exclusive, reference, share};
use super::session::gp_session;
use super::spec::gp_spec;
use super::{Status, guard};
use graphpatch_core::error::Result;
use graphpatch_core::patch::action::{Action, NewPatch};

/// The spec holds for these runs of its root only, counted from 0: "3", "2..", "0..4" (without 4).
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `runs` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_runs(spec: *mut gp_spec, runs: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        exclusive(spec)?.runs = text(runs, "runs")?.parse()?;
        Ok(())
    })
}

/// Whether the spec holds only for runs on the thread that registers it.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_this_thread(spec: *mut gp_spec, only: bool) -> Status {
    guard(|| {
        exclusive(spec)?.this_thread = only;
        Ok(())
    })
}

/// A patch from the spec, if it can be one.
fn patch_from(spec: &NewPatch) -> Result<NewPatch> {
    let patch = spec.fresh();
    if matches!(patch.action, Action::Keep(_)) && !patch.picks.is_empty() {
        let why = "is a probe or record with an index; they keep whole values";
        return Err(wrong("spec", why));
    }
    Ok(patch)
}

/// Registers a patch from the spec, which stays the caller's and may be registered again. As gp_patch_add otherwise.
/// GP_STATUS_ARGUMENT for a probe or record with an index.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `id` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_register(
    session: *const gp_session,
    spec: *const gp_spec,
    id: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share(session)?;
        let patch = patch_from(&*reference(spec)?)?;
        answer(id, "id", 0)?;
        answer(id, "id", session.add(patch)?)
    })
}

/// Registers a patch from each of the `n` specs, in order and all at once: a run begins with all of them or with none. `ids`
/// receives `n` numbers. On error none is registered; GP_STATUS_PATH names every path that is no leaf. As gp_patch_register
/// otherwise.
///
/// Thread: any. NULL: refused, but for specs and ids where n is 0. Errors: GP_STATUS_ARGUMENT, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `specs` points to `n` pointers; `ids` is NULL or has place for `n` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_register_all(
    session: *const gp_session,
    specs: *const *const gp_spec,
    n: usize,
    ids: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = share(session)?;
        if n == 0 {
            return Ok(());
        }
        if ids.is_null() {
            return Err(null("ids"));
        }
        let specs = list(specs, n, "specs")?.iter();
        let patches = specs.map(|spec| patch_from(&*reference(*spec)?));
        let patches: Vec<NewPatch> = patches.collect::<Result<_>>()?;
        for (at, id) in session.add_all(patches)?.into_iter().enumerate() {
            ids.add(at).write(id);
        }
        Ok(())
    })
}

/// Switches patches off, all at once, for runs that begin from now on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn disable_all(session: *const gp_session, ids: &[u64]) {
    guard(|| {
        share(session)?.disable_all(ids);
        Ok(())
    });
}
