//! Text that the library hands over.

use std::ffi::{CString, c_char};

use super::arguments::answer;
use graphpatch_core::error::{Error, Result};

/// Hands over text; the caller frees it with gp_string_free.
///
/// # Safety
///
/// `place` is NULL or may be written.
pub(super) unsafe fn give(place: *mut *mut c_char, name: &'static str, text: &str) -> Result<()> {
    let owned = CString::new(text).map_err(|_| Error::Internal("text with a NUL in it".into()))?;
    let pointer = owned.into_raw();
    // SAFETY: by this function's contract.
    unsafe { answer(place, name, pointer) }.inspect_err(|_| {
        // SAFETY: nobody has seen the pointer.
        drop(unsafe { CString::from_raw(pointer) });
    })
}

/// Frees text that the library handed over. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `text` came from a call that says so, and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: by this function's contract.
        drop(unsafe { CString::from_raw(text) });
    }
}
