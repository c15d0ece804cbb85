//! Values that probes and records have kept.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::arguments::{answer, null, text, wrong};
use super::dlpack::{self, DLManagedTensorVersioned};
use super::handle::reference;
use super::session::gp_session;
use super::{Status, guard};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::kept::Kept;
use graphpatch_core::tensor::safetensors;
use graphpatch_session::keyed;

/// What a probe or record has kept.
fn kept(session: *const gp_session, id: u64) -> Result<Arc<Kept>> {
    let kept = reference(session)?.kept_of(id);
    kept.ok_or_else(|| {
        Error::State(format!(
            "patch number {id} is no probe or record, or is gone"
        ))
    })
}

/// How many values the probe (0 or 1) or record `id` has kept, and how many came after a record's limit was reached
/// (`dropped` may be NULL).
///
/// Thread: any. NULL: dropped. Errors: GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `count` and `dropped` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_kept_count(
    session: *const gp_session,
    id: u64,
    count: *mut u64,
    dropped: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let kept = kept(session, id)?;
        if !dropped.is_null() {
            dropped.write(kept.dropped());
        }
        answer(count, "count", kept.len() as u64)
    })
}

/// Value number `index` that the probe or record `id` has kept: a plain number as a tensor without dimensions. `out`
/// receives a new, read-only, row-major tensor in CPU memory (a CUDA value is read back now; on its own device after
/// gp_spec_keep_on_device), which stays valid after the patch is gone; call its deleter to free it.
/// GP_STATUS_ARGUMENT when there are not so many values.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE, GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_kept_tensor(
    session: *const gp_session,
    id: u64,
    index: u64,
    out: *mut *mut DLManagedTensorVersioned,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let kept = kept(session, id)?;
        let place = usize::try_from(index).ok();
        if out.is_null() {
            return Err(null("out"));
        }
        let remote = place.and_then(|at| kept.remote(at));
        if let Some(lent) = remote.and_then(|copy| graphpatch_torch::lend(copy.as_ref())) {
            return answer(out, "out", lent.as_ptr().cast());
        }
        let value = place.and_then(|at| kept.value(at));
        let why = || format!("is {index}, of {} values kept", kept.len());
        let value = value.ok_or_else(|| wrong("index", why()))?;
        let tensor = dlpack::give(value?);
        answer(out, "out", tensor).inspect_err(|_| dlpack::take_back(tensor))
    })
}

/// Saves what all probes and records of the session have kept as safetensors; a file that was there is replaced as a
/// whole. A probe's value has its path as the key (`PATH~2` for the second probe of one path), a record's values have
/// `PATH#0`, `PATH#1` and so on. Errors: GP_STATUS_FILE; GP_STATUS_REFUSED for a dtype that the format does not know,
/// then nothing is written.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_FILE, GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `file` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_kept_save(session: *const gp_session, file: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let kept = keyed(&reference(session)?.kept());
        let file = Path::new(text(file, "file")?);
        match kept.unsaved.is_empty() {
            true => safetensors::save(file, &kept.tensors),
            false => Err(Error::Refused(kept.unsaved.join("; "))),
        }
    })
}
