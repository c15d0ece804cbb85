//! Whether and how CUDA can be used here, as text, and preparations before the first patch.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::device::{Cuda, DeviceError};
use super::{cuda, resident};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::Patch;

/// One line for the driver, and one for each device: whether the kernels can run there, and why not.
pub fn status() -> Vec<String> {
    match cuda() {
        Ok(cuda) => describe(cuda),
        Err(why) => vec![format!("not usable: {why}")],
    }
}

pub(super) fn describe(cuda: &Cuda) -> Vec<String> {
    let version = cuda.driver().version().unwrap_or_default();
    let mut lines = vec![format!(
        "driver for CUDA {}.{}",
        version / 1000,
        version % 1000 / 10
    )];
    for number in 0..cuda.count() {
        lines.push(match cuda.check(number) {
            Ok(facts) => {
                let (major, minor) = facts.capability;
                format!(
                    "device {number}: {}, compute capability {major}.{minor}: usable",
                    facts.name
                )
            }
            Err(why) => format!("device {number}: not usable: {why}"),
        });
    }
    lines
}

/// Whether the process uses CUDA already. To find out, nothing is loaded or started.
fn is_used() -> bool {
    #[cfg(any(test, feature = "recording-driver"))]
    if super::recording::instead().is_some() {
        return true;
    }
    // SAFETY: the library is loaded, and a driver is never unloaded.
    is_loaded("libcuda.so") && unsafe { super::real::is_started() }
}

/// Whether a library is loaded whose file name begins with `name`. This makes no system call. `dlopen` with RTLD_NOLOAD would
/// look for a missing library in every folder, and a program whose sandbox kills it on `openat` would not survive that.
fn is_loaded(name: &str) -> bool {
    let is_sought = |file: &Path| {
        let file = file.file_name().unwrap_or_default();
        file.as_encoded_bytes().starts_with(name.as_bytes())
    };
    graphpatch_objects::find(|object| match object.file() {
        Some(file) if is_sought(file) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_some()
}

/// Loads the kernels on devices that libtorch uses already, so that the first patch need not load them. Does nothing in a
/// process without CUDA, and returns false as long as no device is used. Faults are reported at the first patch.
pub fn warm(patches: &[Arc<Patch>]) -> bool {
    is_used() && cuda().is_ok_and(|cuda| warm_on(cuda, patches))
}

pub(super) fn warm_on(cuda: &Arc<Cuda>, patches: &[Arc<Patch>]) -> bool {
    let active: Vec<u32> = cuda.active().collect();
    for device in &active {
        let _ = cuda.device(*device, None);
    }
    // If several devices are in use, it is not known yet which of them a patch will meet.
    if let [device] = active[..] {
        let _ = prepare_on(cuda, device, patches);
    }
    !active.is_empty()
}

/// Loads the kernels on a device, and uploads what the patches will need there.
///
/// # Errors
///
/// [`Error::State`] when that device cannot be used, with the reason.
pub fn prepare(device: u32, patches: &[Arc<Patch>]) -> Result<()> {
    let cuda = cuda().map_err(|why| Error::State(why.to_owned()))?;
    prepare_on(cuda, device, patches)
}

pub(super) fn prepare_on(cuda: &Arc<Cuda>, device: u32, patches: &[Arc<Patch>]) -> Result<()> {
    let text = |why| match why {
        DeviceError::Unusable(why) | DeviceError::Failed(why) => Error::State(why),
    };
    cuda.device(device, None).map_err(text)?;
    for patch in patches {
        if let Some(own) = resident(patch) {
            own.prepare(cuda, device, patch).map_err(text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_loaded_is_found_by_its_name() {
        assert!(super::is_loaded("libc.so"));
        assert!(!super::is_loaded("libcuda_that_is_not_there.so"));
    }
}
