//! The patches of one node that wait for the device: planned one by one by [`super::planning`], and launched together if they
//! touch no common element.

use std::sync::Arc;

use super::device::{Cuda, DeviceError, Entered};
use super::entry::{Entry, Tensor};
use super::plan::Value;
use super::planning::Planning;
use super::resident;
use super::work::{Dim, Kernel, Path, Picks, WORKS, Work};
use graphpatch_core::patch::Patch;

/// Who applies a patch that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Our kernels apply it; it waits for [`Queue::flush`].
    Queued,
    /// libtorch has to apply it, after [`Queue::flush`].
    Elsewhere,
}

/// Planned patches, all on one device and stream.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
    at: Option<(u32, usize)>,
}

/// A queued patch, and why it could not be launched; `None` when it was.
pub type Outcome = (Arc<Patch>, Option<String>);

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the tensor is on the device and stream of the queued work.
    pub fn takes(&self, tensor: &Tensor<'_>) -> bool {
        self.at
            .is_none_or(|at| at == (tensor.device, tensor.stream))
    }

    /// Plans a patch on a tensor. `foreign` is the patch's value if that is a tensor of libtorch's on the same device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unusable`] if libtorch has to apply this patch and all others on the device, [`DeviceError::Failed`] if
    /// the patch fails.
    pub fn push(
        &mut self,
        cuda: &Arc<Cuda>,
        patch: &Arc<Patch>,
        tensor: &Tensor<'_>,
        foreign: Option<Value<'_>>,
    ) -> Result<Planned, DeviceError> {
        let Some(planning) = Planning::begin(cuda, patch, tensor)? else {
            return Ok(Planned::Elsewhere);
        };
        let Some(entry) = planning.entry(foreign)? else {
            return Ok(Planned::Elsewhere);
        };
        self.entries.push(entry);
        self.at = Some((tensor.device, tensor.stream));
        Ok(Planned::Queued)
    }

    /// Launches the queued patches, in order. If a launch fails, all patches after it get the same fault.
    pub fn flush(&mut self, cuda: &Arc<Cuda>) -> Vec<Outcome> {
        let entries = std::mem::take(&mut self.entries);
        let Some((number, stream)) = self.at.take() else {
            return Vec::new();
        };
        let mut fault = None;
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let n = together(rest);
            let (now, later) = rest.split_at(n);
            rest = later;
            if fault.is_none() {
                fault = launch(cuda, number, stream, now).err();
            }
            outcomes.extend(now.iter().map(|entry| (entry.patch.clone(), fault.clone())));
        }
        outcomes
    }
}

/// How many of the first entries can go in one launch: at least 1.
fn together(entries: &[Entry]) -> usize {
    let alone = |entry: &Entry| {
        entry.steps.len() != 1 || entry.steps[0].kernel == Kernel::Any || entry.extent.is_none()
    };
    let mut n = 1;
    while n < entries.len().min(WORKS) && !alone(&entries[0]) && !alone(&entries[n]) {
        let misses = |other: &Entry| match (&other.extent, &entries[n].extent) {
            (Some(a), Some(b)) => a.misses(b),
            _ => false,
        };
        if !entries[..n].iter().all(misses) {
            break;
        }
        n += 1;
    }
    n
}

fn launch(cuda: &Arc<Cuda>, device: u32, stream: usize, entries: &[Entry]) -> Result<(), String> {
    let device = match cuda.device(device, None) {
        Ok(device) => device,
        Err(DeviceError::Unusable(why) | DeviceError::Failed(why)) => return Err(why),
    };
    let entered = cuda.enter(device).map_err(|fault| fault.to_string())?;
    launch_on(&entered, stream, entries)?;
    for entry in entries.iter().filter(|entry| entry.reads) {
        if let Some(resident) = resident::of(&entry.patch) {
            resident.read_by(cuda, &entered, stream);
        }
    }
    Ok(())
}

fn launch_on(entered: &Entered<'_>, stream: usize, entries: &[Entry]) -> Result<(), String> {
    if let [entry] = entries {
        for step in &entry.steps {
            let picks = Picks {
                list_step: step.list_step,
                ..entry.picks
            };
            entered
                .one(step.kernel, &step.work, &picks, stream)
                .map_err(|fault| fault.to_string())?;
        }
        return Ok(());
    }
    let works: Vec<Work> = entries
        .iter()
        .flat_map(|entry| &entry.steps)
        .map(|step| strided(&step.work))
        .collect();
    entered
        .several(&works, stream)
        .map_err(|fault| fault.to_string())
}

/// A dense work turned into a strided one, since a batch has only strided works.
fn strided(work: &Work) -> Work {
    let mut out = *work;
    if work.path != Path::Dense as u8 {
        return out;
    }
    let element = u64::from(work.element);
    if work.head == 0 && work.tail == 0 {
        out.unit = 16;
    } else {
        out.unit = work.element;
        out.units = u64::from(work.head) + work.units * 16 / element + u64::from(work.tail);
    }
    let step = i64::from(out.unit);
    out.path = Path::Strided as u8;
    out.head = 0;
    out.tail = 0;
    out.rank = 1;
    out.dims[0] = Dim {
        size: out.units as i64,
        step,
        value_step: step,
    };
    out
}
