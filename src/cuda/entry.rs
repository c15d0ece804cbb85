//! The input and the output of planning: a tensor of libtorch's, and a patch on it that is ready to be launched.

use std::sync::Arc;

use super::plan::Steps;
use super::work::Picks;
use graphpatch_core::layout::Extent;
use graphpatch_core::patch::Patch;
use graphpatch_core::tensor::Dtype;

/// A strided tensor in device memory. Work on the stream `stream` may write it.
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

/// One planned patch.
#[derive(Debug)]
pub(super) struct Entry {
    pub patch: Arc<Patch>,
    /// Whether the launch reads device memory that belongs to the patch.
    pub reads: bool,
    pub steps: Steps,
    pub picks: Picks,
    /// The elements that are touched; `None` if that is not known.
    pub extent: Option<Extent>,
}
