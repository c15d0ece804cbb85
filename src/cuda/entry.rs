//! What planning begins with and what it ends with: a tensor of libtorch's, and a patch on it that only has to be launched.

use std::sync::Arc;

use super::plan::Steps;
use super::work::Picks;
use graphpatch_core::layout::Extent;
use graphpatch_core::patch::Patch;
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

/// One planned patch.
#[derive(Debug)]
pub(super) struct Entry {
    pub patch: Arc<Patch>,
    /// The launch reads memory that goes with the patch.
    pub reads: bool,
    pub steps: Steps,
    pub picks: Picks,
    /// `None` where it is not known what is touched.
    pub extent: Option<Extent>,
}
