//! The patches of one node on their way to the device: planned one by one, launched together where they do not meet.

use std::sync::Arc;

use super::device::{Cuda, Why};
use super::extent::Extent;
use super::plan::{self, Axes, Deed, Steps, Value};
use super::resident::{self, Use};
use super::work::{Dim, Kernel, Op, Path, Picks, WORKS, Work};
use super::{picks, promote};
use graphpatch_core::error::Error;
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::patch::{Number, Patch};
use graphpatch_core::tensor::Dtype;

/// A strided tensor in device memory that may be written, in work that goes to `stream`.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub address: u64,
    pub sizes: &'a [i64],
    /// In elements.
    pub strides: &'a [i64],
    pub dtype: Dtype,
    pub device: u32,
    pub stream: usize,
}

/// What came of a patch that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// It waits for [`Queue::flush`].
    Queued,
    /// libtorch is to do it, after [`Queue::flush`].
    Elsewhere,
}

#[derive(Debug)]
struct Entry {
    patch: Arc<Patch>,
    steps: Steps,
    picks: Picks,
    extent: Option<Extent>,
}

/// Planned patches, all on one device and stream.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
    at: Option<(u32, usize)>,
}

/// What became of a queued patch: `None` when it was launched.
pub type Outcome = (Arc<Patch>, Option<String>);

fn op(action: &Action) -> Option<(Op, Option<&Operand>)> {
    Some(match action {
        Action::Zero => (Op::Zero, None),
        Action::Add(operand) => (Op::Add, Some(operand)),
        Action::Replace(operand) => (Op::Replace, Some(operand)),
        Action::Keep(_) | Action::Custom(_) => return None,
    })
}

/// The value of a patch as a kernel takes it.
enum Given<'a> {
    Nothing,
    Number(Number),
    Tensor(Value<'a>),
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the tensor's work goes where the queued work goes.
    pub fn takes(&self, tensor: &Tensor<'_>) -> bool {
        self.at
            .is_none_or(|at| at == (tensor.device, tensor.stream))
    }

    /// Plans a patch on a tensor. `foreign`: its value, where that is a tensor of libtorch's on the same device.
    ///
    /// # Errors
    ///
    /// [`Why::Unusable`] where libtorch is to do this and all else on the device.
    pub fn push(
        &mut self,
        cuda: &Arc<Cuda>,
        patch: &Arc<Patch>,
        tensor: &Tensor<'_>,
        foreign: Option<Value<'_>>,
    ) -> Result<Planned, Why> {
        let entry = self.plan(cuda, patch, tensor, foreign)?;
        let Some(entry) = entry else {
            return Ok(Planned::Elsewhere);
        };
        self.entries.push(entry);
        self.at = Some((tensor.device, tensor.stream));
        Ok(Planned::Queued)
    }

    fn plan(
        &self,
        cuda: &Arc<Cuda>,
        patch: &Arc<Patch>,
        tensor: &Tensor<'_>,
        foreign: Option<Value<'_>>,
    ) -> Result<Option<Entry>, Why> {
        let Some((op, operand)) = op(&patch.patch.action) else {
            return Ok(None);
        };
        let Some(own) = resident::of(patch) else {
            return Ok(None);
        };
        cuda.device(tensor.device, Some(tensor.stream))?;
        // Where nothing of ours is read from memory, a capture is like any other launch.
        let reads =
            patch.patch.live || patch.slice.is_none() || matches!(operand, Some(Operand::Host(_)));
        let capturing = reads
            && (cuda.driver().is_capturing(tensor.stream))
                .map_err(|fault| Why::Failed(fault.to_string()))?;
        let usage = Use {
            device: tensor.device,
            capturing,
        };

        let size = tensor.dtype.size();
        let mut extent = None;
        let mut lists = Picks::default();
        let (offset, mut axes): (i64, Axes) = if let Some(slice) = &patch.slice {
            let region =
                slice
                    .region(tensor.sizes, tensor.strides)
                    .map_err(|error| match error {
                        Error::Slice { why, .. } => Why::Failed(why),
                        other => Why::Failed(other.to_string()),
                    })?;
            extent = Some(Extent::new(
                tensor.address,
                tensor.sizes,
                tensor.strides,
                slice,
            ));
            (region.offset, plan::axes(&region, size))
        } else {
            let Some((made, address)) = own.lists(cuda, usage, patch)? else {
                return Ok(None);
            };
            // Twice the same element in a sum is a race between threads.
            if op == Op::Add && !made.unique {
                return Ok(None);
            }
            let Some(place) = made.place(tensor.sizes, tensor.strides, size) else {
                return Ok(None);
            };
            let picks::Place {
                offset,
                axes,
                picked,
                count,
            } = place;
            lists = Picks {
                lists: address,
                length: made.length as u64,
                count: count as u64,
                picked,
                ..lists
            };
            (offset, axes)
        };

        let given = match operand {
            None => Given::Nothing,
            Some(Operand::Number(number)) => Given::Number(*number),
            // Added, a tensor without dimensions has as little say in the dtype as a number.
            Some(Operand::Host(value))
                if op == Op::Add && value.shape().is_empty() && value.dtype() != tensor.dtype =>
            {
                match promote::number_of(value) {
                    Some(number) if !axes.is_empty() => Given::Number(number),
                    _ => return Ok(None),
                }
            }
            Some(Operand::Host(value)) => Given::Tensor(Value {
                address: own.value(cuda, usage, value)?,
                dtype: value.dtype(),
                sizes: value.shape(),
                strides: &[],
            }),
            Some(Operand::Foreign(_)) => match foreign {
                Some(value)
                    if op == Op::Replace
                        || !value.sizes.is_empty()
                        || value.dtype == tensor.dtype =>
                {
                    Given::Tensor(value)
                }
                _ => return Ok(None),
            },
        };
        let mut deed = Deed {
            op,
            dtype: tensor.dtype,
            number: [0; 2],
            live: 0,
            value: None,
            common: tensor.dtype,
        };
        match given {
            Given::Nothing => {}
            Given::Number(number) => match promote::number(op, tensor.dtype, number) {
                Some(bytes) => deed.number = bytes,
                None => return Ok(None),
            },
            Given::Tensor(value) => {
                let common = match op {
                    Op::Add => promote::common(tensor.dtype, value.dtype),
                    // Written through index tensors, libtorch converts no dtype.
                    _ if lists.count > 0 && value.dtype != tensor.dtype => None,
                    _ => promote::converts(tensor.dtype, value.dtype).then_some(tensor.dtype),
                };
                let (Some(common), Some(())) = (
                    common,
                    plan::broadcast(&mut axes, &value, op == Op::Replace),
                ) else {
                    return Ok(None);
                };
                deed.common = common;
                deed.value = Some(value);
            }
        }
        if patch.patch.live {
            deed.live = own.live(
                cuda,
                usage,
                patch.is_enabled(),
                op,
                tensor.dtype,
                deed.number,
            )?;
        }
        let address = tensor
            .address
            .wrapping_add_signed(offset.wrapping_mul(size as i64));
        let steps = plan::plan(&deed, address, &axes, lists.count > 0);
        Ok(steps.map(|steps| Entry {
            patch: patch.clone(),
            steps,
            picks: lists,
            extent,
        }))
    }

    /// Launches what waits, in order. The first fault is also that of all behind it.
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
        Err(Why::Unusable(why) | Why::Failed(why)) => return Err(why),
    };
    let entered = cuda.enter(device).map_err(|fault| fault.to_string())?;
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

/// A dense work as a strided one, which is all that a batch knows.
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
