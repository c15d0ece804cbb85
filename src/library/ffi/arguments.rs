//! What a call is given besides objects: places for answers, text, lists.

use std::ffi::{CStr, c_char};

use graphpatch_core::error::{Error, Result};

/// Writes an answer to the caller's place for it.
///
/// # Safety
///
/// `place` is NULL or may be written.
pub(super) unsafe fn answer<T>(place: *mut T, name: &'static str, value: T) -> Result<()> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's contract.
    unsafe { place.write(value) };
    Ok(())
}

/// The caller's NUL-terminated text.
///
/// # Safety
///
/// `text` is NULL or a C string that lives until `'a` ends.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &'static str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|why| wrong(name, format!("is no UTF-8: {why}")))
}

/// The caller's list; NULL stands for an empty one.
///
/// # Safety
///
/// `list` is NULL or points to `n` values that live, and that nobody writes, until `'a` ends.
pub(super) unsafe fn list<'a, T>(list: *const T, n: usize, name: &'static str) -> Result<&'a [T]> {
    match (n, list.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(null(name)),
        // SAFETY: by this function's contract.
        (_, false) => Ok(unsafe { std::slice::from_raw_parts(list, n) }),
    }
}

pub(super) fn null(name: &'static str) -> Error {
    wrong(name, "is NULL")
}

/// The error for the argument `name`, which is wrong because of `why`.
pub(super) fn wrong(name: &'static str, why: impl Into<String>) -> Error {
    let why = why.into();
    Error::Argument { name, why }
}
