//! What the body of each call runs in: panics end here, errors become a status and a message.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::Status;
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

/// What the last call on this thread that did not answer GP_STATUS_OK had to say. Never NULL; empty at first. Borrowed:
/// valid until the next failing call on the same thread.
///
/// Thread: its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_last_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}
