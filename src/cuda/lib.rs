//! One action of a patch on one tensor in the memory of a CUDA device: a small kernel on the value's own buffer and stream.
//!
//! This crate owns everything that knows CUDA. It is given a [`Tensor`] (from the seam, `torch/seam/device.rs`) and a patch
//! (from the session), and launches the kernels in `kernels/`. [`Queue`] holds the patches of one node. `planning.rs` turns
//! each patch into works, with the help of `plan.rs`, `picks.rs` and `promote.rs`; `device.rs` launches the works;
//! `resident.rs` keeps what a patch has in device memory. CUDA's driver is loaded when it is first needed, and only
//! [`driver::Driver`] calls it. Without a driver, or on a card that is too old, libtorch does the work instead.

pub mod device;
pub mod driver;
mod entry;
mod picks;
mod plan;
mod planning;
mod promote;
mod queue;
mod real;
mod resident;
mod status;
mod work;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod launch_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod pick_tests;
#[cfg(any(test, feature = "recording-driver"))]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "only tests use this driver"
)]
pub mod recording;

use graphpatch_locks::OnceLock;
use std::sync::Arc;

pub use device::{Cuda, DeviceError};
pub use entry::Tensor;
pub use plan::Value;
pub use queue::{Planned, Queue};
pub use resident::of as resident;
pub use status::{prepare, status, warm};

/// CUDA on this machine; the driver is loaded by the first call.
///
/// # Errors
///
/// A text for people, which says why there is no usable CUDA.
pub fn cuda() -> Result<&'static Arc<Cuda>, &'static str> {
    #[cfg(any(test, feature = "recording-driver"))]
    if let Some(cuda) = recording::instead() {
        return Ok(cuda);
    }
    static CUDA: OnceLock<Result<Arc<Cuda>, String>> = OnceLock::new();
    let made = CUDA.get_or_init(|| {
        let driver = real::Real::open().map_err(|fault| match fault.code {
            0 => fault.text,
            // CUDA_ERROR_NO_DEVICE
            100 => device::NO_DEVICE.to_owned(),
            _ => fault.to_string(),
        })?;
        Cuda::new(Box::new(driver))
    });
    made.as_ref().map_err(String::as_str)
}

/// Whether the stream is being captured, so that work for it goes into a graph.
pub fn is_capturing(stream: usize) -> bool {
    cuda().is_ok_and(|cuda| cuda.driver().is_capturing(stream).unwrap_or(false))
}
