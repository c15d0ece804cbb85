//! Structs that a caller allocates and the library fills. Their first member is their size as the caller's header knows
//! them, so that they can grow: the library fills what both know, and zeroes what only the caller knows.

use super::arguments::{null, wrong};
use graphpatch_core::error::Result;

/// A struct of the header that begins with `size_t size`.
///
/// # Safety
///
/// It is `repr(C)`, begins with a `usize`, and has no padding at its end: a later version's members would lie in it.
pub(super) unsafe trait Grows: Copy {
    /// The size of its first version, which every caller has at least.
    const FIRST: usize;
}

/// No struct ever gets this large: a size above it was never set.
const MOST: usize = 4096;

/// Fills the caller's struct, whose `size` stays as it is.
///
/// # Safety
///
/// `place` is NULL or points to a `usize` and as many writable bytes, itself counted, as it says, up to [`MOST`].
pub(super) unsafe fn fill<T: Grows>(place: *mut T, name: &'static str, value: T) -> Result<()> {
    // SAFETY: by this function's contract.
    let size = unsafe { check(place, name) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: by this function's contract `size` bytes may be written, and `known` are no more than `value` has. The
    // first member is the caller's.
    unsafe {
        let (from, to) = ((&raw const value).cast::<u8>(), place.cast::<u8>());
        let behind = size_of::<usize>();
        std::ptr::copy_nonoverlapping(from.add(behind), to.add(behind), known - behind);
        to.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// The size that the caller's struct says it has.
///
/// # Safety
///
/// As [`fill`].
pub(super) unsafe fn check<T: Grows>(place: *const T, name: &'static str) -> Result<usize> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's contract a `usize` stands first.
    let size = unsafe { place.cast::<usize>().read() };
    if !(T::FIRST..=MOST).contains(&size) {
        let why = format!(
            "has a size of {size}, expected {} or more: set its member `size` to sizeof, or begin with its GP_..._INIT",
            T::FIRST
        );
        return Err(wrong(name, why));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Three {
        size: usize,
        first: u64,
        second: u64,
        third: u64,
    }

    // SAFETY: repr(C), a usize in front, all members of eight bytes.
    unsafe impl Grows for Three {
        const FIRST: usize = 24;
    }

    /// What four numbers, the first of them the size, become.
    fn filled(size: usize) -> Result<[u64; 5]> {
        let mut place = [size as u64, 7, 7, 7, 7];
        let value = Three {
            size: 1,
            first: 11,
            second: 12,
            third: 13,
        };
        // SAFETY: the array is as large as the sizes that are tried, or refused ones.
        unsafe { fill(place.as_mut_ptr().cast(), "out", value) }.map(|()| place)
    }

    #[test]
    fn callers_of_every_age_get_what_they_know() {
        assert_eq!(
            filled(24).unwrap(),
            [24, 11, 12, 7, 7],
            "the first version's"
        );
        assert_eq!(filled(32).unwrap(), [32, 11, 12, 13, 7], "ours");
        assert_eq!(filled(40).unwrap(), [40, 11, 12, 13, 0], "a later one's");
    }

    #[test]
    fn sizes_that_were_never_set_are_refused() {
        for size in [0, 8, 23, MOST + 1, usize::MAX] {
            let error = filled(size).unwrap_err().to_string();
            assert!(error.contains(&size.to_string()), "{error}");
        }
        // SAFETY: NULL is refused.
        let null = unsafe { check(std::ptr::null::<Three>(), "out") };
        assert!(null.unwrap_err().to_string().contains("NULL"));
    }
}
