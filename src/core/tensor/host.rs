//! A dense, row-major tensor that we own.

use super::Dtype;
use crate::error::{Error, Result};
use crate::layout;
use crate::path::Slice;

/// Its memory is aligned to 16 bytes, enough for every dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    dtype: Dtype,
    shape: Vec<i64>,
    len: usize,
    words: Vec<u128>,
}

impl HostTensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a negative size, or more bytes than there can be.
    pub fn zeros(dtype: Dtype, shape: &[i64]) -> Result<HostTensor> {
        let bytes = shape
            .iter()
            .try_fold(dtype.size(), |n, size| {
                n.checked_mul(usize::try_from(*size).ok()?)
            })
            .filter(|n| isize::try_from(*n).is_ok());
        let Some(len) = bytes else {
            return Err(Error::Refused(format!("no tensor has the shape {shape:?}")));
        };
        let n = len.div_ceil(size_of::<u128>());
        let mut words = Vec::new();
        words.try_reserve_exact(n).map_err(|_| {
            Error::Refused(format!("there is no memory for a tensor of {len} bytes"))
        })?;
        words.resize(n, 0);
        Ok(HostTensor {
            dtype,
            shape: shape.to_vec(),
            len,
            words,
        })
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Elements in row-major order, in the machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// What `tensor[slice]` is, as a tensor of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Slice`] where the slice does not fit.
    pub fn sliced(&self, slice: &Slice) -> Result<HostTensor> {
        let region = slice.region(&self.shape, &layout::dense_strides(&self.shape))?;
        let mut part = HostTensor::zeros(self.dtype, &region.sizes)?;
        part.gather(self.bytes(), region.offset, &region.strides);
        Ok(part)
    }

    /// Takes its elements from memory in which they lie with these strides, counted in elements, from element `first` on. What
    /// would lie outside of it stays zero: the caller has compared the region with the memory.
    pub(super) fn gather(&mut self, from: &[u8], first: i64, strides: &[i64]) {
        let axes = layout::axes(&self.shape, strides);
        let size = self.dtype.size();
        let mut elements = self.bytes_mut().chunks_exact_mut(size);
        layout::walk(&axes, |[at]| {
            let begin = usize::try_from(first.wrapping_add(at)).unwrap_or(usize::MAX);
            let begin = begin.saturating_mul(size);
            let source = from.get(begin..begin.saturating_add(size));
            if let (Some(element), Some(source)) = (elements.next(), source) {
                element.copy_from_slice(source);
            }
        });
    }
}
