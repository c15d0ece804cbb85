//! A strided tensor in CPU memory that an action may write.

/// Element types, named as libtorch names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
    F16,
    Bf16,
    F32,
    F64,
    /// Pairs of the real type, 2, 4 and 8 bytes each.
    C32,
    C64,
    C128,
    /// One byte whose value is 0 when all bits are.
    F8,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::F8 => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 | Dtype::C32 => 4,
            Dtype::I64 | Dtype::U64 | Dtype::F64 | Dtype::C64 => 8,
            Dtype::C128 => 16,
        }
    }
}

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
        let reach: i64 = sizes
            .iter()
            .zip(strides)
            .map(|(n, step)| (n - 1).max(0) * step)
            .sum();
        assert!((reach as usize) < memory.len().max(1));
        // SAFETY: the farthest element lies inside `memory`, which is borrowed for as long as the view lives.
        unsafe { View::new(memory.as_mut_ptr().cast(), sizes, strides, dtype) }
    }
}
