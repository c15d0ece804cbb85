//! What a person, or a program, wants to know of CUDA; and getting ready ahead of the first patch.

use std::sync::Arc;

use libloading::os::unix::{Library, RTLD_LAZY};

use super::device::{Cuda, Why};
use super::{cuda, resident};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::Patch;
use graphpatch_locks::gate::Inside;

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

/// Whether the process uses CUDA already: nothing is loaded or started to find out.
fn is_used() -> bool {
    #[cfg(any(test, feature = "recording-driver"))]
    if super::recording::instead().is_some() {
        return true;
    }
    const RTLD_NOLOAD: i32 = 4;
    // A child of a fork in the middle of this would find the dynamic linker's tables half-changed.
    let _inside = Inside::new();
    // SAFETY: with RTLD_NOLOAD no initialiser runs; the handle is closed again.
    let loaded = unsafe { Library::open(Some("libcuda.so.1"), RTLD_LAZY | RTLD_NOLOAD) }.is_ok();
    // SAFETY: it is loaded, and drivers are never unloaded.
    loaded && unsafe { super::real::is_started() }
}

/// Loads the kernels on devices that libtorch uses already, so that the first patch finds them there. Does nothing in a
/// process without CUDA, and answers `false` as long as no device is used; what is wrong shows at the first patch.
pub fn warm(patches: &[Arc<Patch>]) -> bool {
    is_used() && cuda().is_ok_and(|cuda| warm_on(cuda, patches))
}

pub(super) fn warm_on(cuda: &Arc<Cuda>, patches: &[Arc<Patch>]) -> bool {
    let active: Vec<u32> = cuda.active().collect();
    for device in &active {
        let _ = cuda.device(*device, None);
    }
    // With several devices in use it is not known yet which one a patch will meet.
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
        Why::Unusable(why) | Why::Failed(why) => Error::State(why),
    };
    cuda.device(device, None).map_err(text)?;
    for patch in patches {
        if let Some(own) = resident(patch) {
            own.prepare(cuda, device, patch).map_err(text)?;
        }
    }
    Ok(())
}
