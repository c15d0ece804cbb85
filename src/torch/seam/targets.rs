//! The targets of a site as structs of the seam, and what these point into.

use std::sync::Arc;

use super::guard::guard;
use super::lent::{borrowed, dtype_code};
use crate::foreign::{NativeFunction, Takes, TorchTensor};
use crate::seam_generated as raw;
use graphpatch_core::patch::action::{Action, NewPatch, Operand, Pick};
use graphpatch_core::patch::{Number, OnError, Plan};
use graphpatch_core::path::slice::Item;
use graphpatch_core::tensor::HostTensor;
use graphpatch_session::{self as session, Run, thread};

/// The targets of one site as structs of the seam, and what these point into.
pub(super) struct Targets {
    list: Vec<raw::GpTarget>,
    _parts: Vec<Parts>,
    /// Owns the texts and tensors that the parts borrow.
    _plan: Arc<Plan>,
}

/// What one target points to.
pub(super) struct Parts {
    dig: Vec<raw::GpStep>,
    slice: Vec<raw::GpSliceItem>,
    /// Each tensor has a box of its own, so that its address stays the same while more are pushed.
    #[expect(clippy::vec_box, reason = "targets point to the boxes' content")]
    tensors: Vec<Box<raw::GpTensorArg>>,
}

/// Writes the address of the run's targets at a site, and their owner, and returns how many targets there are.
///
/// # Safety
///
/// `owner` and `out` may be written.
pub(super) unsafe fn give_targets(
    site: impl FnOnce(&mut Run) -> Option<u32>,
    owner: *mut *mut raw::GpTargets,
    out: *mut *const raw::GpTarget,
) -> usize {
    let made = thread::with_run(|run| {
        let site = site(run)?;
        let plan = run.plan()?.clone();
        Some(Box::new(Targets::new(run, plan, site)))
    });
    let Some(Some(targets)) = made else { return 0 };
    let (first, n) = (targets.list.as_ptr(), targets.list.len());
    // SAFETY: by this function's contract.
    unsafe {
        *out = first;
        *owner = Box::into_raw(targets).cast();
    }
    n
}

pub(super) unsafe extern "C" fn targets_free(owner: *mut raw::GpTargets) {
    if owner.is_null() {
        return;
    }
    // SAFETY: the handle is `give_targets`'s, given back once.
    let targets = unsafe { Box::from_raw(owner.cast::<Targets>()) };
    guard((), || drop(targets));
}

impl Targets {
    /// The targets of `site` that hold in this run.
    fn new(run: &mut Run, plan: Arc<Plan>, site: u32) -> Targets {
        let (mut list, mut parts) = (Vec::new(), Vec::new());
        for target in plan.targets(site).iter() {
            if !run.holds(target.patch) {
                continue;
            }
            let mut own = Parts {
                dig: target
                    .dig
                    .iter()
                    .map(|step| raw::GpStep {
                        index: step.index.map_or(-1, i64::from),
                        key: borrowed(&step.key),
                    })
                    .collect(),
                slice: Vec::new(),
                tensors: Vec::new(),
            };
            let patch = &plan.patches[target.patch as usize];
            own.add_slice(&patch.patch);
            match own.target(target.patch, &patch.patch.action) {
                Some(given) => {
                    list.push(raw::GpTarget {
                        raises: (plan.on_error != OnError::Skip).into(),
                        tensors: patch.patch.path.names_are_pattern().into(),
                        text: borrowed(&patch.text),
                        ..given
                    });
                    parts.push(own);
                }
                // Only this crate makes such values and functions. If that ever changes, the patch counts as failed.
                None => {
                    let why = "its value or its function is none that libtorch's side knows";
                    run.applied_elsewhere(target.patch, why, None);
                    session::note(run.failure());
                }
            }
        }
        Targets {
            list,
            _parts: parts,
            _plan: plan,
        }
    }
}

impl Parts {
    fn tensor(&mut self, tensor: &HostTensor) -> *const raw::GpTensorArg {
        let arg = Box::new(raw::GpTensorArg {
            data: tensor.bytes().as_ptr().cast(),
            sizes: tensor.shape().as_ptr(),
            rank: tensor.shape().len() as u32,
            dtype: dtype_code(tensor.dtype()),
            foreign: std::ptr::null_mut(),
        });
        let pointer = &raw const *arg;
        self.tensors.push(arg);
        pointer
    }

    fn add_slice(&mut self, patch: &NewPatch) {
        for pick in &patch.picks {
            let item = match pick {
                Pick::Item(item) => slice_item(item),
                Pick::Tensor(tensor) => raw::GpSliceItem {
                    tag: raw::GP_SLICE_TENSOR as u8,
                    tensor: self.tensor(tensor),
                    ..raw::GpSliceItem::default()
                },
            };
            self.slice.push(item);
        }
    }

    fn target(&mut self, patch: u32, action: &Action) -> Option<raw::GpTarget> {
        let mut target = raw::GpTarget {
            patch,
            dig: self.dig.as_ptr(),
            dig_len: self.dig.len(),
            slice: self.slice.as_ptr(),
            slice_len: self.slice.len(),
            ..raw::GpTarget::default()
        };
        let (code, operand) = match action {
            Action::Zero => (raw::GP_ZERO, None),
            Action::Add(operand) => (raw::GP_ADD, Some(operand)),
            Action::Replace(operand) => (raw::GP_REPLACE, Some(operand)),
            Action::Keep(_) => (raw::GP_KEEP, None),
            Action::Custom(function) => {
                let function = NativeFunction::of(function.as_ref())?;
                target.callback = function.function;
                target.user = function.user;
                let code = match function.takes {
                    Takes::Torch => raw::GP_CUSTOM_TORCH,
                    Takes::DlPack => raw::GP_CUSTOM,
                };
                (code, None)
            }
        };
        target.action = code as u8;
        match operand {
            Some(Operand::Number(number)) => target.value = scalar(number),
            Some(Operand::Host(tensor)) => target.tensor = self.tensor(tensor),
            Some(Operand::Foreign(foreign)) => {
                let arg = Box::new(raw::GpTensorArg {
                    foreign: TorchTensor::handle(foreign.as_ref())?,
                    ..raw::GpTensorArg::default()
                });
                target.tensor = &raw const *arg;
                self.tensors.push(arg);
            }
            None => {}
        }
        Some(target)
    }
}

fn slice_item(item: &Item) -> raw::GpSliceItem {
    let mut out = raw::GpSliceItem::default();
    match item {
        Item::Index(index) => {
            out.tag = raw::GP_SLICE_INDEX as u8;
            out.start = *index;
        }
        Item::Range { start, stop, step } => {
            out.tag = raw::GP_SLICE_RANGE as u8;
            out.has_start = start.is_some().into();
            out.has_stop = stop.is_some().into();
            out.start = start.unwrap_or(0);
            out.stop = stop.unwrap_or(0);
            out.step = step.unwrap_or(1);
        }
        Item::Ellipsis => out.tag = raw::GP_SLICE_ELLIPSIS as u8,
        Item::NewAxis => out.tag = raw::GP_SLICE_NEWAXIS as u8,
    }
    out
}

fn scalar(number: &Number) -> raw::GpScalar {
    let mut out = raw::GpScalar::default();
    match *number {
        Number::Bool(value) => {
            out.tag = raw::GP_BOOL as u8;
            out.i = value.into();
        }
        Number::Int(value) => {
            out.tag = raw::GP_INT as u8;
            out.i = value;
        }
        Number::Float(value) => {
            out.tag = raw::GP_FLOAT as u8;
            out.re = value;
        }
        Number::Complex(re, im) => {
            out.tag = raw::GP_COMPLEX as u8;
            out.re = re;
            out.im = im;
        }
    }
    out
}
