//! What a registered patch does to its value: the spec, after its files were read and its numbers checked.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::kept::Kept;
use super::{Kind, Number, PatchSpec, RunRange, Value};
use crate::error::{Error, Result};
use crate::path::{Item, NodePath, Slice};
use crate::tensor::{Dtype, HostTensor};

/// The value of an add or replace.
#[derive(Clone, Debug)]
pub enum Operand {
    Number(Number),
    /// A tensor of ours; broadcasts to the slice.
    Host(Arc<HostTensor>),
    /// A tensor of libtorch's own, gradients and all.
    Foreign(Arc<dyn ForeignTensor>),
}

/// A tensor of libtorch that a patch holds; only the crate `graphpatch-torch` can look into it.
///
/// Dropping it may run code of the user's. So it is never dropped while a lock of ours is held.
pub trait ForeignTensor: Any + Send + Sync + fmt::Debug {}

/// A function of the user's that changes a value; only the crate that calls it can look into it.
///
/// Dropping it may run code of the user's. So it is never dropped while a lock of ours is held.
pub trait UserFunction: Any + Send + Sync + fmt::Debug {}

/// What is done to the picked part of the value.
#[derive(Clone, Debug)]
pub enum Action {
    Zero,
    Add(Operand),
    Replace(Operand),
    /// Keeps a copy of the value: the last one, or all.
    Keep(Arc<Kept>),
    Custom(Arc<dyn UserFunction>),
}

/// One item of an index into a tensor.
#[derive(Clone, Debug)]
pub enum Pick {
    /// An integer, a range, `...` or `None`.
    Item(Item),
    /// Integer indices or a boolean mask, with libtorch's meaning.
    Tensor(Arc<HostTensor>),
}

/// A patch as it is registered.
#[derive(Clone, Debug)]
pub struct NewPatch {
    pub path: NodePath,
    /// The index into the value; empty for the whole value.
    pub picks: Vec<Pick>,
    pub action: Action,
    pub runs: RunRange,
    /// Holds for runs on the registering thread only.
    pub this_thread: bool,
    /// On a device, the kernel reads the patch's switch and number from memory each time it runs, so that they can be changed
    /// in a captured graph.
    pub live: bool,
}

impl Pick {
    /// A tensor as part of an index.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a dtype that is none of int32, int64, bool and uint8.
    pub fn tensor(tensor: Arc<HostTensor>) -> Result<Pick> {
        match tensor.dtype() {
            Dtype::Bool | Dtype::U8 | Dtype::I32 | Dtype::I64 => Ok(Pick::Tensor(tensor)),
            other => Err(Error::Refused(format!(
                "a {} tensor is no index: give int32 or int64 indices, or a bool or uint8 mask",
                other.name()
            ))),
        }
    }
}

impl NewPatch {
    /// The patch that a spec describes; reads its file.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::File`] and [`crate::error::Error::Format`] for a file that holds no such tensor.
    pub fn from_spec(spec: PatchSpec) -> Result<NewPatch> {
        let action = match &spec.kind {
            Kind::Zero => Action::Zero,
            Kind::Add(value) => Action::Add(Operand::from_value(value)?),
            Kind::Replace(value) => Action::Replace(Operand::from_value(value)?),
            Kind::Probe => Action::Keep(Arc::new(Kept::last())),
            Kind::Record { limit } => Action::Keep(Arc::new(Kept::all(*limit))),
        };
        Ok(NewPatch {
            path: spec.path,
            picks: spec.slice.0.into_iter().map(Pick::Item).collect(),
            action,
            runs: spec.runs,
            this_thread: false,
            live: false,
        })
    }

    /// A patch that zeroes the whole value.
    pub fn zero(path: NodePath) -> NewPatch {
        NewPatch {
            path,
            picks: Vec::new(),
            action: Action::Zero,
            runs: RunRange::default(),
            this_thread: false,
            live: false,
        }
    }

    /// The same patch; a probe or record with nothing kept yet.
    pub fn fresh(&self) -> NewPatch {
        let action = match &self.action {
            Action::Keep(kept) => Action::Keep(Arc::new(kept.fresh())),
            other => other.clone(),
        };
        NewPatch {
            action,
            ..self.clone()
        }
    }

    /// The index as a slice, if it needs no tensor.
    pub fn slice(&self) -> Option<Slice> {
        let item = |pick: &Pick| match pick {
            Pick::Item(item) => Some(*item),
            Pick::Tensor(_) => None,
        };
        self.picks
            .iter()
            .map(item)
            .collect::<Option<_>>()
            .map(Slice)
    }

    /// The index as text; a tensor in it by its dtype and shape.
    pub fn index_text(&self) -> String {
        if self.picks.is_empty() {
            return String::new();
        }
        let text = |pick: &Pick| match pick {
            Pick::Item(item) => {
                let one = Slice(vec![*item]).to_string();
                one.trim_matches(['[', ']']).to_owned()
            }
            Pick::Tensor(tensor) => tensor_text(tensor),
        };
        format!(
            "[{}]",
            self.picks.iter().map(text).collect::<Vec<_>>().join(", ")
        )
    }

    /// The patch as its user would write it, as far as text goes.
    pub fn text(&self) -> String {
        let operand = |operand: &Operand| match operand {
            Operand::Number(number) => number.to_string(),
            Operand::Host(tensor) => tensor_text(tensor),
            Operand::Foreign(_) => "tensor".to_owned(),
        };
        let action = match &self.action {
            Action::Zero => "zero".to_owned(),
            Action::Add(value) => format!("add:{}", operand(value)),
            Action::Replace(value) => format!("replace:{}", operand(value)),
            Action::Keep(kept) if kept.keeps_all() => "record".to_owned(),
            Action::Keep(_) => "probe".to_owned(),
            Action::Custom(_) => "custom".to_owned(),
        };
        format!("{}{}={action}", self.path, self.index_text())
    }
}

impl Operand {
    /// The value that text or a patch file names; reads its file.
    ///
    /// # Errors
    ///
    /// What [`Value`]'s file says.
    pub fn from_value(value: &Value) -> Result<Operand> {
        Ok(match value {
            Value::Number(number) => Operand::Number(*number),
            Value::File(file) => Operand::Host(Arc::new(file.load()?)),
        })
    }
}

fn tensor_text(tensor: &HostTensor) -> String {
    let sizes: Vec<String> = tensor.shape().iter().map(i64::to_string).collect();
    format!("{}({})", tensor.dtype().name(), sizes.join(", "))
}
