//! A report before a sudden end. `_exit` and `abort` are also called from signal handlers and with a broken heap, where
//! writing a report may hang or crash. If it does, the process still ends in the way it asked for, a little later.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::process;
use super::reports;

/// The signals that interrupt the report: SIGALRM when it hangs, the others when it crashes.
const SIGNALS: [libc::c_int; 5] = [
    libc::SIGALRM,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGILL,
];
const PATIENCE_SECONDS: libc::time_t = 3;
/// The value of `ENDING` that stands for an end by SIGABRT. Any other value is an exit code.
const BY_ABORT: i32 = i32::MIN;

static ENDING: AtomicI32 = AtomicI32::new(BY_ABORT);
static BUSY: AtomicBool = AtomicBool::new(false);

/// How the process is about to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `_exit(code)`
    Exit(i32),
    /// `abort()`
    Abort,
}

/// Writes the last report, if this is an attached process.
pub fn report_before(ending: Ending) {
    if !process::is_attached_here() || !reports::may_write() || BUSY.swap(true, Ordering::AcqRel) {
        return;
    }
    let code = match ending {
        Ending::Exit(code) => code,
        Ending::Abort => BY_ABORT,
    };
    ENDING.store(code, Ordering::Release);
    let interrupts = Interrupts::set();
    reports::report_now();
    drop(interrupts);
    // A program may catch SIGABRT and live on.
    BUSY.store(false, Ordering::Release);
}

/// Ends the process at once, in the way it asked for.
extern "C" fn end(_signal: libc::c_int) {
    let code = ENDING.load(Ordering::Acquire);
    // SAFETY: only async-signal-safe calls: the raw system call, signal, pthread_sigmask and raise.
    unsafe {
        if code != BY_ABORT {
            libc::syscall(libc::SYS_exit_group, libc::c_long::from(code));
        }
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        unblock(&[libc::SIGABRT]);
        libc::raise(libc::SIGABRT);
        libc::syscall(
            libc::SYS_exit_group,
            128 + libc::c_long::from(libc::SIGABRT),
        );
    }
}

/// The signal handlers, the mask and the timer of the program, put back when dropped.
struct Interrupts {
    actions: [libc::sigaction; SIGNALS.len()],
    mask: libc::sigset_t,
    timer: libc::itimerval,
}

impl Interrupts {
    fn set() -> Interrupts {
        // SAFETY: these plain C structs are valid when zero, and all pointers below are to locals.
        unsafe {
            let mut before: Interrupts = std::mem::zeroed();
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigemptyset(&mut action.sa_mask);
            for (signal, old) in SIGNALS.iter().zip(&mut before.actions) {
                libc::sigaction(*signal, &action, old);
            }
            before.mask = unblock(&SIGNALS);
            let mut patience: libc::itimerval = std::mem::zeroed();
            patience.it_value.tv_sec = PATIENCE_SECONDS;
            libc::setitimer(libc::ITIMER_REAL, &patience, &mut before.timer);
            before
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // SAFETY: puts back what `set` has read.
        unsafe {
            libc::setitimer(libc::ITIMER_REAL, &self.timer, std::ptr::null_mut());
            for (signal, old) in SIGNALS.iter().zip(&self.actions) {
                libc::sigaction(*signal, old, std::ptr::null_mut());
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, std::ptr::null_mut());
        }
    }
}

/// Unblocks these signals on this thread and returns the mask from before.
///
/// # Safety
/// None needed of the caller: async-signal-safe calls on locals only. Unsafe so that it may be called in a handler.
unsafe fn unblock(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a sigset_t is valid when zero; the pointers are to locals.
    unsafe {
        let (mut set, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, &mut before);
        before
    }
}
