//! Compiled code in a run: its operations are not seen, and it tells of the values that are wanted by an operator,
//! `graphpatch::tap(Tensor(a!) value, str path) -> ()`, which libtorch has as soon as the adapter is loaded.

use std::ffi::c_char;

use super::arguments::{answer, text};
use super::{Status, guard, string};
use graphpatch_session::thread;

/// The paths of the values that have appeared in this thread's run since the last call, each on a line, and counted from
/// the root; the first call begins to keep them. Empty outside a run. The new text is freed with gp_string_free.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `paths` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_named(paths: *mut *mut c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        answer(paths, "paths", std::ptr::null_mut())?;
        string::give(paths, "paths", &thread::named()?)
    })
}

/// The paths of what this run's patches name in the innermost scope and below it, each on a line, and counted from that
/// scope. Empty outside a run. `any` receives whether patches of the run stand at patterns: then any value may be meant, and
/// `paths` receives an empty text. The new text is freed with gp_string_free.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `any` and `paths` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_patched(any: *mut bool, paths: *mut *mut c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        answer(any, "any", false)?;
        answer(paths, "paths", std::ptr::null_mut())?;
        let patched = thread::patched()?;
        answer(any, "any", patched.is_none())?;
        string::give(paths, "paths", patched.as_deref().unwrap_or_default())
    })
}

/// Compiled code is about to compute values of the innermost scope. `names`, each on a line, are those that nodes directly
/// in that scope have, in the order of the operations. `fits` receives whether they get these names: not where the scope
/// has named values before, nor while the run is recorded, nor outside a run. Then nothing has happened, and the
/// operations have to be called one by one. Otherwise the operator graphpatch::tap, called with a value and its path from
/// the innermost scope, applies the patches that stand there.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `names` is NULL or a C string; `fits` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_computes(names: *const c_char, fits: *mut bool) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let names: Vec<&str> = text(names, "names")?.lines().collect();
        answer(fits, "fits", false)?;
        answer(fits, "fits", thread::computes(&names)?)
    })
}
