//! From a patch and a tensor to an entry of the queue: where the elements lie, what the value is, and the launches. An answer
//! `None` leaves the patch to libtorch.

use std::sync::Arc;

use super::device::{Cuda, DeviceError};
use super::entry::{Entry, Tensor};
use super::picks::PickedRegion;
use super::plan::{self, Axes, RegionAction, Value};
use super::promote;
use super::resident::{self, Resident, Use};
use super::work::{Op, Picks};
use graphpatch_core::error::Error;
use graphpatch_core::layout::{Extent, LeadingOnes};
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::patch::{Number, Patch};
use graphpatch_core::path::Slice;

/// A patch that is being planned for one tensor.
pub(super) struct Planning<'a> {
    cuda: &'a Arc<Cuda>,
    patch: &'a Arc<Patch>,
    tensor: &'a Tensor<'a>,
    op: Op,
    operand: Option<&'a Operand>,
    resident: &'a Resident,
    /// Whether the launch reads device memory that belongs to the patch.
    reads: bool,
    usage: Use,
}

/// Where the elements that a patch changes lie.
struct Location {
    /// From the tensor's first element, in elements.
    offset: i64,
    axes: Axes,
    picks: Picks,
    extent: Option<Extent>,
}

/// The value of a patch as a kernel takes it.
enum KernelValue<'a> {
    Nothing,
    Number(Number),
    Tensor(Value<'a>),
}

fn op(action: &Action) -> Option<(Op, Option<&Operand>)> {
    Some(match action {
        Action::Zero => (Op::Zero, None),
        Action::Add(operand) => (Op::Add, Some(operand)),
        Action::Replace(operand) => (Op::Replace, Some(operand)),
        Action::Keep(_) | Action::Custom(_) => return None,
    })
}

impl<'a> Planning<'a> {
    /// Begins to plan. `None` for an action that no kernel does.
    ///
    /// # Errors
    ///
    /// See [`Cuda::device`].
    pub fn begin(
        cuda: &'a Arc<Cuda>,
        patch: &'a Arc<Patch>,
        tensor: &'a Tensor<'a>,
    ) -> Result<Option<Planning<'a>>, DeviceError> {
        let Some((op, operand)) = op(&patch.patch.action) else {
            return Ok(None);
        };
        let Some(resident) = resident::of(patch) else {
            return Ok(None);
        };
        let device = cuda.device(tensor.device, Some(tensor.stream))?;
        let failed = |fault: super::driver::Fault| DeviceError::Failed(fault.to_string());
        if !cuda.reaches(device, tensor.stream).map_err(failed)? {
            return Err(DeviceError::Unusable(format!(
                "the stream belongs to another context than the primary one of CUDA device {}, for instance to a green context",
                tensor.device
            )));
        }
        // A launch that reads none of our memory is the same in a capture as outside of one.
        let reads =
            patch.patch.live || patch.slice.is_none() || matches!(operand, Some(Operand::Host(_)));
        let capturing = reads && (cuda.driver().is_capturing(tensor.stream)).map_err(failed)?;
        Ok(Some(Planning {
            cuda,
            patch,
            tensor,
            op,
            operand,
            resident,
            reads: reads && !capturing,
            usage: Use {
                device: tensor.device,
                capturing,
            },
        }))
    }

    /// The planned patch. `foreign` is the patch's value if that is a tensor of libtorch's on the same device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Failed`] for a slice that does not fit, and where something cannot be uploaded.
    pub fn entry(&self, foreign: Option<Value<'a>>) -> Result<Option<Entry>, DeviceError> {
        let found = match &self.patch.slice {
            Some(slice) => Some(self.sliced(slice)?),
            None => self.picked()?,
        };
        let Some(Location {
            offset,
            mut axes,
            picks,
            extent,
        }) = found
        else {
            return Ok(None);
        };
        let Some(given) = self.kernel_value(foreign, axes.is_empty())? else {
            return Ok(None);
        };
        let picked = picks.count > 0;
        let Some(mut action) = self.region_action(given, &mut axes, picked) else {
            return Ok(None);
        };
        if self.patch.patch.live {
            let on = self.patch.is_enabled();
            let (op, dtype) = (self.op, self.tensor.dtype);
            action.live =
                self.resident
                    .live(self.cuda, self.usage, on, op, dtype, action.number)?;
        }
        let bytes = offset.wrapping_mul(self.tensor.dtype.size() as i64);
        let address = self.tensor.address.wrapping_add_signed(bytes);
        let steps = plan::plan(&action, address, &axes, picked);
        Ok(steps.map(|steps| Entry {
            patch: self.patch.clone(),
            reads: self.reads,
            steps,
            picks,
            extent,
        }))
    }

    /// The elements that a slice names.
    fn sliced(&self, slice: &Slice) -> Result<Location, DeviceError> {
        let selection = slice
            .select(self.tensor.sizes, self.tensor.strides)
            .map_err(|error| match error {
                Error::Slice { why, .. } => DeviceError::Failed(why),
                other => DeviceError::Failed(other.to_string()),
            })?;
        let region = selection.region();
        Ok(Location {
            offset: region.offset,
            axes: plan::axes(&region, self.tensor.dtype.size()),
            picks: Picks::default(),
            extent: Some(Extent::new(self.tensor.address, &selection)),
        })
    }

    /// The elements that index tensors name.
    fn picked(&self) -> Result<Option<Location>, DeviceError> {
        let Some((lists, address)) = self.resident.lists(self.cuda, self.usage, self.patch)? else {
            return Ok(None);
        };
        // If a sum picks an element twice, threads race to change it.
        if self.op == Op::Add && !lists.unique {
            return Ok(None);
        }
        let Tensor {
            sizes,
            strides,
            dtype,
            ..
        } = *self.tensor;
        let region = lists.region(sizes, strides, dtype.size());
        Ok(region.map(
            |PickedRegion {
                 offset,
                 axes,
                 picked,
                 count,
             }| Location {
                offset,
                axes,
                picks: Picks {
                    lists: address,
                    length: lists.length as u64,
                    count: count as u64,
                    picked,
                    ..Picks::default()
                },
                extent: None,
            },
        ))
    }

    /// The patch's value. With `scalar`, the region has no dimensions.
    fn kernel_value<'b>(
        &self,
        foreign: Option<Value<'b>>,
        scalar: bool,
    ) -> Result<Option<KernelValue<'b>>, DeviceError>
    where
        'a: 'b,
    {
        let dtype = self.tensor.dtype;
        // When a tensor without dimensions is added, it influences the resulting dtype as little as a number does.
        let is_like_a_number =
            |sizes: &[i64], own| self.op == Op::Add && sizes.is_empty() && own != dtype;
        Ok(match self.operand {
            None => Some(KernelValue::Nothing),
            Some(Operand::Number(number)) => Some(KernelValue::Number(*number)),
            Some(Operand::Host(value)) if is_like_a_number(value.shape(), value.dtype()) => {
                let number = promote::number_of(value).filter(|_| !scalar);
                number.map(KernelValue::Number)
            }
            Some(Operand::Host(value)) => Some(KernelValue::Tensor(Value {
                address: self.resident.value(self.cuda, self.usage, value)?,
                dtype: value.dtype(),
                sizes: value.shape(),
                strides: None,
            })),
            Some(Operand::Foreign(_)) => foreign
                .filter(|value| !is_like_a_number(value.sizes, value.dtype))
                .map(KernelValue::Tensor),
        })
    }

    /// The action on the region. Gives the region's axes the value's steps.
    fn region_action<'b>(
        &self,
        given: KernelValue<'b>,
        axes: &mut Axes,
        picked: bool,
    ) -> Option<RegionAction<'b>> {
        let dtype = self.tensor.dtype;
        let mut action = RegionAction {
            op: self.op,
            dtype,
            number: [0; 2],
            live: 0,
            value: None,
            common: dtype,
        };
        let value = match given {
            KernelValue::Nothing => return Some(action),
            KernelValue::Number(number) => {
                action.number = promote::number(self.op, dtype, number)?;
                return Some(action);
            }
            KernelValue::Tensor(value) => value,
        };
        let leading = match self.op {
            Op::Add => {
                action.common = promote::common(dtype, value.dtype)?;
                LeadingOnes::Refused
            }
            // libtorch converts no dtype when it writes through index tensors.
            _ if picked && value.dtype != dtype => return None,
            _ if !promote::converts(dtype, value.dtype) => return None,
            Op::Replace => LeadingOnes::Dropped,
            Op::Zero => return None,
        };
        plan::broadcast(axes, &value, leading)?;
        action.value = Some(value);
        Some(action)
    }
}
