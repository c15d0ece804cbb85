//! Where in memory a region lies: rows of neighbours, as few and as long as can be.

use super::view::View;
use graphpatch_core::path::Region;

/// A region of memory with its neighbouring dimensions merged: as few and as long rows as there can be.
pub(super) struct Place {
    start: *mut u8,
    /// Sizes and strides in elements, outermost first; the last one is the row.
    dims: Vec<(usize, isize)>,
    empty: bool,
}

impl Place {
    pub(super) fn new(view: &View<'_>, region: &Region) -> Place {
        let mut dims: Vec<(usize, isize)> = region
            .sizes
            .iter()
            .zip(&region.strides)
            .map(|(size, stride)| (*size as usize, *stride as isize))
            .filter(|(size, _)| *size != 1)
            .collect();
        let empty = dims.iter().any(|(size, _)| *size == 0);
        // The order of elements does not matter here, so the smallest stride becomes the row.
        dims.sort_by_key(|(_, stride)| std::cmp::Reverse(stride.unsigned_abs()));
        let mut merged: Vec<(usize, isize)> = Vec::with_capacity(dims.len().max(1));
        for (size, stride) in dims {
            match merged.last_mut() {
                Some(outer) if outer.1 == stride * size as isize => {
                    *outer = (outer.0 * size, stride);
                }
                _ => merged.push((size, stride)),
            }
        }
        if merged.is_empty() {
            merged.push((1, 1));
        }
        let bytes = region.offset as isize * view.dtype.size() as isize;
        Place {
            start: view.data.wrapping_offset(if empty { 0 } else { bytes }),
            dims: merged,
            empty,
        }
    }

    /// Calls `row` with the first element, the length and the stride of each row.
    fn rows<T>(&self, row: impl FnMut(*mut T, usize, isize)) {
        if !self.empty {
            rows(self.start.cast::<T>(), &self.dims, row);
        }
    }

    /// Replaces every element by `change` of it.
    pub(super) fn map<T: Copy>(&self, change: impl Fn(T) -> T + Copy) {
        self.rows(|first: *mut T, len, stride| {
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
        self.rows(|first: *mut T, len, stride| {
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
        self.rows(|first: *mut T, len, stride| {
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

/// A loop that is compiled twice: for any machine, and with the wide vectors that nearly all have. Its operands come by
/// value, so that the compiler knows that a written element changes none of them.
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

/// Walks `dims` (size and stride, outermost first) from `start`, and calls `row` for each step of all but the last.
/// There must be no dimension of size 0.
pub(super) fn rows<T>(
    start: *mut T,
    dims: &[(usize, isize)],
    mut row: impl FnMut(*mut T, usize, isize),
) {
    let Some(((len, stride), outer)) = dims.split_last() else {
        return;
    };
    let mut index = vec![0usize; outer.len()];
    let mut offset = 0isize;
    loop {
        row(start.wrapping_offset(offset), *len, *stride);
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            let (size, step) = outer[d];
            index[d] += 1;
            offset += step;
            if index[d] < size {
                break;
            }
            offset -= step * size as isize;
            index[d] = 0;
        }
    }
}
