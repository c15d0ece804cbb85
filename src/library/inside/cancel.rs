//! `pthread_cancel` of a thread that is at work for us waits until that is done.

use std::ffi::c_int;

// Not in the libc crate.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// POSIX leaves the number open; glibc and musl have this one.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// While it lives, this thread is not cancelled: writing files would be a place for that, and a cancellation unwinds the
/// stack, which ends the process where it meets Rust code.
pub struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    pub fn new() -> Self {
        let mut before = 0;
        // SAFETY: `before` is a number that may be written.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: a state that this thread had; NULL means that nobody asks for the present one.
        unsafe { pthread_setcancelstate(self.before, std::ptr::null_mut()) };
    }
}
