//! A strided tensor in CPU memory that an action may write.

use crate::tensor::Dtype;

/// A tensor's memory for the length of one call.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) data: *mut u8,
    /// Number of elements in each dimension.
    pub sizes: &'a [i64],
    /// Distance between neighbours in each dimension, in elements.
    pub strides: &'a [i64],
    pub dtype: Dtype,
}

impl<'a> View<'a> {
    /// A view of the elements that `sizes` and `strides` reach from `data`.
    ///
    /// # Safety
    ///
    /// All of those elements are of `dtype`, aligned, and may be read and written by the caller alone until `'a`
    /// ends. `sizes` and `strides` have the same length.
    pub unsafe fn new(
        data: *mut u8,
        sizes: &'a [i64],
        strides: &'a [i64],
        dtype: Dtype,
    ) -> View<'a> {
        View {
            data,
            sizes,
            strides,
            dtype,
        }
    }

    /// Where the element lies that is `offset` elements from the first; `None` if `T` is no element's size.
    pub(super) fn element<T>(&self, offset: i64) -> Option<*mut T> {
        let bytes = offset as isize * self.dtype.size() as isize;
        (size_of::<T>() == self.dtype.size()).then(|| self.data.wrapping_offset(bytes).cast())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A view of a test's own memory.
    pub fn of<'a, T>(
        memory: &'a mut [T],
        sizes: &'a [i64],
        strides: &'a [i64],
        dtype: Dtype,
    ) -> View<'a> {
        assert_eq!(size_of::<T>(), dtype.size());
        if !sizes.contains(&0) {
            let steps = sizes.iter().zip(strides);
            let reach: i64 = steps.map(|(n, step)| (n - 1) * step).sum();
            assert!((reach as usize) < memory.len());
        }
        // SAFETY: the farthest element lies inside `memory`, which is borrowed for as long as the view lives.
        unsafe { View::new(memory.as_mut_ptr().cast(), sizes, strides, dtype) }
    }
}
