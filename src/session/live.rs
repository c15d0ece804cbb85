//! Live patches, whose switch and value lie in device memory, so that captured CUDA graphs follow a change; and preparing
//! CUDA.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Session;
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::Patch;
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_cuda::{self as cuda, DeviceError};
use graphpatch_locks::OnceLock;

fn text(why: DeviceError) -> Error {
    match why {
        DeviceError::Unusable(why) | DeviceError::Failed(why) => Error::Refused(why),
    }
}

/// Writes the switch into the memory of a live patch, if it has any.
pub(super) fn switch(patch: &Patch, on: bool) -> Result<()> {
    match cuda::resident(patch) {
        Some(own) if patch.patch.live => own.switch(on).map_err(text),
        _ => Ok(()),
    }
}

impl Session {
    /// Gives an add or replace another value: in runs that begin from now on, and, for a live patch, in graphs that were
    /// captured with it. There a number stays a number, and a tensor keeps its shape and dtype.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when there is no such patch, [`Error::Refused`] when it takes no such value; it keeps the old
    /// one then.
    pub fn set_value(self: &Arc<Self>, id: u64, value: Operand) -> Result<()> {
        let mut patches = self.patches.lock();
        let found = patches.iter_mut().find(|patch| patch.id == id);
        let patch = found.ok_or_else(|| Error::State(format!("there is no patch number {id}")))?;
        let old = match &patch.patch.action {
            Action::Add(old) | Action::Replace(old) => old,
            _ => return Err(Error::Refused(format!("patch number {id} has no value"))),
        };
        if patch.patch.live {
            let own = cuda::resident(patch);
            match (old, &value, own) {
                (Operand::Number(_), Operand::Number(number), Some(own)) => {
                    own.change_number(*number).map_err(text)?;
                }
                (Operand::Host(old), Operand::Host(tensor), Some(own))
                    if old.dtype() == tensor.dtype() && old.shape() == tensor.shape() =>
                {
                    own.change_tensor(tensor).map_err(text)?;
                }
                _ => {
                    return Err(Error::Refused(
                        "the value of a live patch stays a number, or a tensor of the same shape and dtype".into(),
                    ));
                }
            }
        }
        let action = match &patch.patch.action {
            Action::Add(_) => Action::Add(value),
            _ => Action::Replace(value),
        };
        let mut changed = patch.with_action(action);
        if !patch.patch.live {
            // The old value's copies on devices go with the old patch.
            changed.resident = OnceLock::new();
        }
        let old = std::mem::replace(patch, Arc::new(changed));
        let before = self.rebuild(&patches);
        // The old value may be a tensor of libtorch's; dropping it runs code of the user's.
        drop(patches);
        drop((old, before));
        Ok(())
    }

    /// Loads the kernels on a CUDA device, and uploads there what the session's patches need.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when the device cannot be used.
    pub fn prepare_device(&self, device: u32) -> Result<()> {
        let patches = self.patches.lock().clone();
        cuda::prepare(device, &patches)
    }

    /// The same on every device that the process uses already, so that a capture finds everything ready. Called when libtorch
    /// is attached, and again as runs begin, until a device is in use. Patches that are added later are uploaded when they are
    /// added.
    pub fn warm_devices(&self) {
        if self.warmed.load(Ordering::Relaxed) {
            return;
        }
        let patches = self.patches.lock().clone();
        if cuda::warm(&patches) {
            self.warmed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether to look for devices before run number `run` of a root with patches: before the first runs, then less and
    /// less often.
    pub(crate) fn warms_before(run: u64) -> bool {
        run == 0 || run.is_power_of_two()
    }
}
