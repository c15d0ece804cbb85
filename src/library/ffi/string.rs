//! Text that the library hands over. The library knows which texts callers have, so that each is freed only once.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char};

use super::arguments::{null, wrong};
use super::guard;
use graphpatch_core::error::{Error, Result};
use graphpatch_locks::Mutex;

/// The addresses of all texts that callers have.
static HANDED_OVER: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Hands over text; the caller frees it with gp_string_free.
///
/// # Safety
///
/// `place` is NULL or may be written.
pub(super) unsafe fn give(place: *mut *mut c_char, name: &'static str, text: &str) -> Result<()> {
    let owned = CString::new(text).map_err(|_| Error::Internal("text with a NUL in it".into()))?;
    if place.is_null() {
        return Err(null(name));
    }
    let pointer = owned.into_raw();
    HANDED_OVER.lock().insert(pointer.addr());
    // SAFETY: by this function's contract.
    unsafe { place.write(pointer) };
    Ok(())
}

/// Frees text that the library handed over. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `text` is not the address of a later text that another thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_string_free(text: *mut c_char) {
    guard(|| {
        if text.is_null() {
            return Ok(());
        }
        if !HANDED_OVER.lock().remove(&text.addr()) {
            let why = "is no text of this library, or was freed";
            return Err(wrong("text", why));
        }
        // SAFETY: `give` made it, and nobody has freed it since.
        drop(unsafe { CString::from_raw(text) });
        Ok(())
    });
}
