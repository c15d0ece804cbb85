//! A thread that writes a report is not cancelled meanwhile. Where the report grows above the limit on the size of files,
//! writing fails instead of ending the process.

use std::ffi::c_int;

// The libc crate does not declare it.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// POSIX leaves the number open; glibc and musl have this one.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// While this value lives, its thread is not cancelled. Writing a file is a cancellation point, and a cancellation unwinds the
/// stack, which ends the process when it reaches Rust code. SIGXFSZ is blocked as well: a file that grows above the
/// process's limit (`ulimit -f`) then gives an error instead of ending the process.
pub struct Undisturbed {
    cancel_state: c_int,
    /// The mask from before, where the signal was neither blocked nor waiting.
    mask: Option<libc::sigset_t>,
}

impl Undisturbed {
    pub fn new() -> Self {
        let mut cancel_state = 0;
        // SAFETY: `cancel_state` is a number that may be written.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut cancel_state) };
        Undisturbed {
            cancel_state,
            mask: block_file_limit(),
        }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        if let Some(mask) = &self.mask {
            let none = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: pointers to locals, or NULL where nobody asks for an answer. The kernel sends the signal to the thread that
            // writes, so one that waits here came from us.
            unsafe {
                while libc::sigtimedwait(&only_file_limit(), std::ptr::null_mut(), &none) > 0 {}
                libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
            }
        }
        // SAFETY: a state that this thread had; NULL means that nobody asks for the present one.
        unsafe { pthread_setcancelstate(self.cancel_state, std::ptr::null_mut()) };
    }
}

fn only_file_limit() -> libc::sigset_t {
    // SAFETY: a sigset_t is valid when zero; the pointer is to a local.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGXFSZ);
        set
    }
}

/// Blocks SIGXFSZ on this thread and returns the mask from before. `None` where the program has blocked the signal itself,
/// or where one is pending already, since that one is the program's own.
fn block_file_limit() -> Option<libc::sigset_t> {
    // SAFETY: sets are valid when zero; all pointers are to locals.
    unsafe {
        let (mut before, mut waiting): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, &only_file_limit(), &mut before);
        libc::sigpending(&mut waiting);
        let has = |set: &libc::sigset_t| libc::sigismember(set, libc::SIGXFSZ) == 1;
        if has(&before) || has(&waiting) {
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            return None;
        }
        Some(before)
    }
}
