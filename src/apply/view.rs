//! A strided tensor in CPU memory that an action may write.

use graphpatch_core::layout;
use graphpatch_core::tensor::Dtype;

/// The memory of a tensor, borrowed for one call.
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

    /// A view of the caller's own memory. `None` if sizes and strides reach out of it, if `T` does not have the size of an
    /// element, or if the memory is not aligned for an element.
    pub fn over<T: bytemuck::Pod>(
        memory: &'a mut [T],
        sizes: &'a [i64],
        strides: &'a [i64],
        dtype: Dtype,
    ) -> Option<View<'a>> {
        if size_of::<T>() != dtype.size() || sizes.len() != strides.len() {
            return None;
        }
        // Complex numbers of 16 bytes are read and written as two words.
        if !memory.as_ptr().addr().is_multiple_of(dtype.size().min(8)) {
            return None;
        }
        if !sizes.contains(&0) {
            let (nearest, farthest) = layout::span(sizes, strides)?;
            if nearest < 0 || usize::try_from(farthest).ok()? >= memory.len() {
                return None;
            }
        }
        // SAFETY: no element lies before `memory`, and the farthest one lies inside it. It is aligned, and borrowed for as
        // long as the view lives; every pattern of bits is a `T`.
        Some(unsafe { View::new(memory.as_mut_ptr().cast(), sizes, strides, dtype) })
    }

    /// The address of the element that is `offset` elements from the first; `None` if `T` does not have an element's size.
    pub(super) fn element<T>(&self, offset: i64) -> Option<*mut T> {
        let bytes = offset as isize * self.dtype.size() as isize;
        (size_of::<T>() == self.dtype.size()).then(|| self.data.wrapping_offset(bytes).cast())
    }
}
