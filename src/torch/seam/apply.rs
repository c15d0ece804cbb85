//! Applies patches to a value that the adapter lends, and reports the result.

use super::guard::guard;
use super::lent::{array, borrowed, text, view};
use crate::seam_generated as raw;
use graphpatch_apply::{Scalar, View};
use graphpatch_session::{Run, Verdict, thread};

pub(super) fn verdict(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Applied => raw::GP_APPLIED,
        Verdict::Skipped => raw::GP_SKIPPED,
        Verdict::Raise => raw::GP_RAISE,
        Verdict::Elsewhere => raw::GP_ELSEWHERE,
    }
}

pub(super) unsafe extern "C" fn keep_wanted(target: *const raw::GpTarget) -> u32 {
    guard(0, || {
        // SAFETY: the target lent for this call.
        let patch = unsafe { &*target }.patch;
        thread::with_run(|run| run.keep_wanted(patch))
            .unwrap_or(false)
            .into()
    })
}

/// Calls `act` with this thread's run and the tensor that the adapter lends.
///
/// # Safety
///
/// Target and tensor are as `seam.h` says, and the tensor's memory is this call's alone.
pub(super) unsafe fn with_view(
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
    act: impl FnOnce(&mut Run, u32, &View<'_>) -> Verdict,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: by this function's contract.
        let (target, view) = unsafe { (&*target, view(&*tensor)) };
        let Some(view) = view else {
            return raw::GP_ELSEWHERE;
        };
        thread::with_run(|run| act(run, target.patch, &view)).map_or(raw::GP_ELSEWHERE, verdict)
    })
}

pub(super) unsafe extern "C" fn keep(
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory, which is only read (seam.h).
    unsafe { with_view(target, tensor, Run::keep) }
}

pub(super) unsafe extern "C" fn apply(
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory that is its own to write (seam.h).
    unsafe { with_view(target, tensor, Run::apply) }
}

pub(super) unsafe extern "C" fn apply_scalar(
    target: *const raw::GpTarget,
    number: *mut raw::GpScalar,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: target and number lent for this call.
        let (target, number) = unsafe { (&*target, &mut *number) };
        let mut scalar = match u32::from(number.tag) {
            raw::GP_BOOL => Scalar::Bool(number.i != 0),
            raw::GP_INT => Scalar::Int(number.i),
            _ => Scalar::Float(number.re),
        };
        let answer = thread::with_run(|run| run.apply_scalar(target.patch, &mut scalar));
        match scalar {
            Scalar::Bool(value) => number.i = value.into(),
            Scalar::Int(value) => number.i = value,
            Scalar::Float(value) => number.re = value,
        }
        answer.map_or(raw::GP_SKIPPED, verdict)
    })
}

pub(super) unsafe extern "C" fn applied_elsewhere(
    target: *const raw::GpTarget,
    why: raw::GpStr,
    sizes: *const i64,
    rank: usize,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: all lent for this call.
        let (target, why) = unsafe { (&*target, text(why)) };
        // SAFETY: as above; a rank of `usize::MAX` means that there is no shape.
        let sizes = (rank != usize::MAX).then(|| unsafe { array(sizes, rank) });
        thread::with_run(|run| run.applied_elsewhere(target.patch, why, sizes))
            .map_or(raw::GP_SKIPPED, verdict)
    })
}

/// The text is unchanged until the thread's run fails again. The adapter copies it before it makes another call.
pub(super) extern "C" fn failure() -> raw::GpStr {
    guard(raw::GpStr::default(), || {
        thread::with_run(|run| borrowed(run.failure())).unwrap_or_default()
    })
}
