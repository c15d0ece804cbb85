//! CUDA values across the seam: targets on device memory, and copies that the adapter keeps for us.

use super::apply::verdict;
use super::guard::guard;
use super::lent::{array, dtype};
use crate::foreign::DeviceCopy;
use crate::seam_generated as raw;
use graphpatch_core::patch::kept::OnDevice;
use graphpatch_cuda::{self as cuda, Tensor, Value};
use graphpatch_session::{Run, Verdict, thread};

use std::ffi::c_void;
use std::sync::Arc;

/// The adapter's tensor; `None` for a dtype that we do not know.
///
/// # Safety
///
/// `tensor` is as `seam.h` says.
unsafe fn tensor<'a>(tensor: &'a raw::GpDeviceTensor) -> Option<Tensor<'a>> {
    let rank = tensor.tensor.rank as usize;
    // SAFETY: by this function's contract sizes and strides have `rank` numbers.
    let (sizes, strides) = unsafe {
        (
            array(tensor.tensor.sizes, rank),
            array(tensor.tensor.strides, rank),
        )
    };
    Some(Tensor {
        address: tensor.tensor.data.expose_provenance() as u64,
        sizes,
        strides,
        dtype: dtype(tensor.tensor.dtype)?,
        device: u32::try_from(tensor.device).ok()?,
        stream: tensor.stream.expose_provenance(),
    })
}

pub(super) unsafe extern "C" fn apply_on_device(
    target: *const raw::GpTarget,
    at: *const raw::GpDeviceTensor,
    value: *const raw::GpDeviceTensor,
    more: u32,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: lent for this call (seam.h).
        let (target, at, value) = unsafe {
            (
                &*target,
                tensor(&*at),
                value.as_ref().map(|value| tensor(value)),
            )
        };
        let Some(at) = at else {
            return raw::GP_ELSEWHERE;
        };
        let foreign = match value {
            None => None,
            Some(None) => return raw::GP_ELSEWHERE,
            Some(Some(value)) => Some(Value {
                address: value.address,
                dtype: value.dtype,
                sizes: value.sizes,
                strides: Some(value.strides),
            }),
        };
        thread::with_run(|run| run.apply_on_device(target.patch, &at, foreign, more != 0))
            .map_or(raw::GP_ELSEWHERE, verdict)
    })
}

pub(super) extern "C" fn flush_device() -> u32 {
    guard(raw::GP_SKIPPED, || {
        verdict(thread::with_run(Run::flush_device).unwrap_or(Verdict::Skipped))
    })
}

pub(super) unsafe extern "C" fn is_capturing(stream: *const c_void) -> u32 {
    guard(0, || cuda::is_capturing(stream.expose_provenance()).into())
}

pub(super) unsafe extern "C" fn keep_on_device(
    target: *const raw::GpTarget,
    kept: *const raw::GpKept,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: lent for this call.
        let (target, kept) = unsafe { (&*target, &*kept) };
        // SAFETY: the adapter hands the copy over. It is ours from here on, and its Drop frees it, even if nobody wants it.
        let copy = unsafe { DeviceCopy::take(kept.handle) };
        // SAFETY: `sizes` has the tensor's rank.
        let sizes = unsafe { array(kept.sizes, kept.rank as usize) };
        let (Some(copy), Some(dtype)) = (copy, dtype(kept.dtype)) else {
            return raw::GP_SKIPPED;
        };
        let value = OnDevice::new(dtype, sizes.to_vec(), Arc::new(copy));
        thread::with_run(|run| run.keep_on_device(target.patch, value))
            .map_or(raw::GP_SKIPPED, verdict)
    })
}
