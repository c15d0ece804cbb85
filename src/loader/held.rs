//! Signals that come from writing: a program that is only watched must not be ended because we have written something.

use std::ffi::c_int;

/// What writing may cause: the end of who reads a pipe, and a file above the process's limit (`ulimit -f`).
const CAUSED: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// While this value lives, its thread gets none of these signals: writing fails instead. Those that came meanwhile are taken
/// away. A signal that the program itself has blocked, or that waits already, stays as it is.
pub struct Held {
    signals: libc::sigset_t,
    before: libc::sigset_t,
}

impl Held {
    #[allow(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Held {
        // SAFETY: sets are valid when zero; all pointers are to locals.
        unsafe {
            let (mut all, mut signals, mut before, mut waiting): (
                libc::sigset_t,
                libc::sigset_t,
                libc::sigset_t,
                libc::sigset_t,
            ) = std::mem::zeroed();
            libc::sigemptyset(&raw mut all);
            libc::sigemptyset(&raw mut signals);
            for signal in CAUSED {
                libc::sigaddset(&raw mut all, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            libc::sigpending(&raw mut waiting);
            for signal in CAUSED {
                let has = |set: *const libc::sigset_t| libc::sigismember(set, signal) == 1;
                if !has(&raw const before) && !has(&raw const waiting) {
                    libc::sigaddset(&raw mut signals, signal);
                }
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
            Held { signals, before }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: pointers to locals, or NULL where nobody asks for an answer. The kernel sends these signals to the thread that
        // writes, so one that waits here came from us.
        unsafe {
            let signals = &raw const self.signals;
            while libc::sigtimedwait(signals, std::ptr::null_mut(), &raw const none) > 0 {}
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::FromRawFd;

    /// Rust's own tests ignore SIGPIPE; here it would end the process.
    #[test]
    fn a_pipe_without_a_reader_is_an_error_alone() {
        let mut ends = [0; 2];
        // SAFETY: a new pipe whose ends are owned here; the disposition is put back.
        unsafe {
            let before = libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            libc::close(ends[0]);
            let mut writer = std::fs::File::from_raw_fd(ends[1]);
            let held = Held::new();
            let why = writer.write_all(b"x").expect_err("nobody reads");
            assert_eq!(why.kind(), std::io::ErrorKind::BrokenPipe);
            drop(held);
            libc::signal(libc::SIGPIPE, before);
        }
    }
}
