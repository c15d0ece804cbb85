//! The edge itself: panics end here, errors become a status and a message.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Status;
use graphpatch_core::error::{Error, Result};

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

fn remember(message: &str) {
    let text = CString::new(message.replace('\0', "?")).unwrap_or_default();
    LAST.with(|last| last.replace(text));
}

/// Runs the body of a call. Success leaves the last message alone.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> Status {
    crate::fork::install();
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(Error::Internal("a panic; please report it".into())));
    match result {
        Ok(()) => Status::Ok,
        Err(error) => {
            remember(&error.to_string());
            Status::from(&error)
        }
    }
}

/// The reference behind a pointer of the caller's.
///
/// # Safety
///
/// `pointer` is NULL or points to a live `T` that nobody writes until `'a` ends.
pub(super) unsafe fn reference<'a, T>(pointer: *const T, name: &'static str) -> Result<&'a T> {
    // SAFETY: by this function's contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

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
        .map_err(|why| Error::Argument {
            name,
            why: format!("is no UTF-8: {why}"),
        })
}

pub(super) fn null(name: &'static str) -> Error {
    Error::Argument {
        name,
        why: "is NULL".into(),
    }
}

/// What the last call on this thread that did not answer GP_STATUS_OK had to say. Never NULL; empty at first. Borrowed:
/// valid until the next failing call on the same thread.
///
/// Thread: its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_last_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}
