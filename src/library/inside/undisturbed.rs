//! A thread that writes a report is not cancelled meanwhile. Where the report grows above the limit on the size of files,
//! writing fails instead of ending the process.

use std::ffi::c_int;

use graphpatch_loader::held::Held;

// The libc crate does not declare it.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// POSIX leaves the number open; glibc and musl have this one.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// While this value lives, its thread is not cancelled. Writing a file is a cancellation point, and a cancellation unwinds the
/// stack, which ends the process when it reaches Rust code. Signals that writing causes are held back.
pub struct Undisturbed {
    cancel_state: c_int,
    _held: Held,
}

impl Undisturbed {
    pub fn new() -> Self {
        let mut cancel_state = 0;
        // SAFETY: `cancel_state` is a number that may be written.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut cancel_state) };
        Undisturbed {
            cancel_state,
            _held: Held::new(),
        }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // SAFETY: a state that this thread had; NULL means that nobody asks for the present one.
        unsafe { pthread_setcancelstate(self.cancel_state, std::ptr::null_mut()) };
    }
}
