//! A region of CPU memory as rows of neighbours, as few and as long as possible, and the loops over one row.

use super::view::View;
use graphpatch_core::layout::{self, Axes, Axis, Region};

/// A region of a view's memory whose elements may be visited in any order.
pub(super) struct Rows {
    start: *mut u8,
    /// Steps in elements; the last dimension is the row.
    axes: Axes<1>,
}

impl Rows {
    pub(super) fn new(view: &View<'_>, region: &Region) -> Rows {
        let bytes = region.offset as isize * view.dtype.size() as isize;
        Rows {
            start: view.data.wrapping_offset(bytes),
            axes: layout::at_least_one(layout::merge_sorted(region.axes()), 1),
        }
    }

    /// Calls `row` with the first element, the length and the stride of each row.
    fn each<T>(&self, row: impl FnMut(*mut T, usize, isize)) {
        rows(self.start.cast::<T>(), &self.axes, row);
    }

    /// Replaces every element by `change` of it.
    pub(super) fn map<T: Copy>(&self, change: impl Fn(T) -> T + Copy) {
        self.each(|first: *mut T, len, stride| {
            if stride == 1 {
                // SAFETY: the region lies inside the view (`Slice::region`), whose memory is the caller's alone,
                // aligned and initialized (`View::new`); a row of stride 1 is `len` neighbours.
                map_row(
                    unsafe { std::slice::from_raw_parts_mut(first, len) },
                    change,
                );
            } else {
                for i in 0..len {
                    // SAFETY: as above, for the i-th element of the row.
                    unsafe {
                        let element = first.wrapping_offset(i as isize * stride);
                        element.write(change(element.read()));
                    }
                }
            }
        });
    }

    /// Writes `value` into every element.
    pub(super) fn fill<T: Copy>(&self, value: T) {
        self.each(|first: *mut T, len, stride| {
            if stride == 1 {
                // SAFETY: as in `map`.
                map_row(
                    unsafe { std::slice::from_raw_parts_mut(first, len) },
                    move |_| value,
                );
            } else {
                for i in 0..len {
                    // SAFETY: as in `map`.
                    unsafe { first.wrapping_offset(i as isize * stride).write(value) };
                }
            }
        });
    }

    /// Sets every byte of every element to 0.
    pub(super) fn zero<T: Copy>(&self, zero: T) {
        self.each(|first: *mut T, len, stride| {
            if stride == 1 {
                // SAFETY: as in `map`; all dtypes have a value whose bytes are 0.
                unsafe { first.write_bytes(0, len) };
            } else {
                for i in 0..len {
                    // SAFETY: as in `map`.
                    unsafe { first.wrapping_offset(i as isize * stride).write(zero) };
                }
            }
        });
    }
}

/// A loop that is compiled twice: for any machine, and with wide vectors (AVX2), which nearly all machines have. Its operands
/// are passed by value, so that the compiler knows that writing an element changes none of them.
macro_rules! wide {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        pub(super) fn $name<T: Copy>($($arg: $type),*) {
            #[inline(always)]
            fn any<T: Copy>($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<T: Copy>($($arg: $type),*) {
                    any($($arg),*);
                }
                if is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                {
                    // SAFETY: the machine has these features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            any($($arg),*)
        }
    };
}

wide! {
    /// Replaces every element by `change` of it.
    fn map_row(row: &mut [T], change: impl Fn(T) -> T + Copy) {
        for element in row {
            *element = change(*element);
        }
    }
}

wide! {
    /// Replaces every element by `with` of it and the other's element.
    fn zip_row(row: &mut [T], other: &[T], with: impl Fn(T, T) -> T + Copy) {
        for (element, value) in row.iter_mut().zip(other) {
            *element = with(*element, *value);
        }
    }
}

/// Calls `row` with the first element, the length and the stride of each row of a tensor that begins at `start`. The rows
/// come in row-major order.
pub(super) fn rows<T>(start: *mut T, axes: &[Axis<1>], mut row: impl FnMut(*mut T, usize, isize)) {
    layout::walk_rows(axes, |[at], inner| {
        let first = start.wrapping_offset(at as isize);
        row(first, inner.size as usize, inner.steps[0] as isize);
    });
}
