//! Paths and slices as text, checked without a model.

use std::ffi::c_char;

use super::arguments::{answer, list, text};
use super::{Status, guard, string};
use graphpatch_core::error::Result;
use graphpatch_core::path::{NodePath, Slice};

/// Whether `path` is well-formed; `canonical` (may be NULL) receives it as it is printed, new text to be freed with
/// gp_string_free. GP_STATUS_PARSE: the message names the character.
///
/// Thread: any. NULL: canonical. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `canonical` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_path_parse(path: *const c_char, canonical: *mut *mut c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let path: NodePath = text(path, "path")?.parse()?;
        maybe(canonical, &path.to_string())
    })
}

/// The same for a slice such as "[..., ::2]": `canonical` receives new text, to be freed with gp_string_free.
///
/// Thread: any. NULL: canonical. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `slice` is NULL or a C string; `canonical` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_slice_parse(
    slice: *const c_char,
    canonical: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let slice: Slice = text(slice, "slice")?.parse()?;
        maybe(canonical, &slice.to_string())
    })
}

/// Whether `slice` fits a tensor of `rank` sizes; `elements` (may be NULL) receives how many elements it picks.
///
/// Thread: any. NULL: elements, and sizes with `rank` 0. Errors: GP_STATUS_PARSE, GP_STATUS_SLICE. Since 0.1.0.
///
/// # Safety
///
/// `slice` is NULL or a C string; `sizes` points to `rank` numbers; `elements` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_slice_check(
    slice: *const c_char,
    sizes: *const i64,
    rank: usize,
    elements: *mut i64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let slice: Slice = text(slice, "slice")?.parse()?;
        let sizes = list(sizes, rank, "sizes")?;
        let region = slice.region(sizes, &vec![1; rank])?;
        match elements.is_null() {
            true => Ok(()),
            false => answer(elements, "elements", region.numel()),
        }
    })
}

/// Hands text over if the caller wants it.
///
/// # Safety
///
/// `place` is NULL or may be written.
unsafe fn maybe(place: *mut *mut c_char, text: &str) -> Result<()> {
    if place.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract.
    unsafe { string::give(place, "canonical", text) }
}
