//! Starts the program in the command's own process group and waits for it, as `env` or `time` would. The program decides what
//! signals do. Signals of the terminal reach it directly; signals that are sent to the command are passed on.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};

/// Signals that would end the command while the program runs, so that the reports would be lost.
const PASSED_ON: [libc::c_int; 6] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

static PROGRAM: AtomicI32 = AtomicI32::new(0);
static EARLY: AtomicI32 = AtomicI32::new(0);

/// Runs the command to its end. Only one may run at a time.
pub fn launch(command: &mut Command) -> io::Result<ExitStatus> {
    let _signals = Signals::catch(&PASSED_ON, pass_on);
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    PROGRAM.store(pid, Ordering::SeqCst);
    let early = EARLY.swap(0, Ordering::SeqCst);
    if early != 0 && pid > 0 {
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(pid, early) };
    }
    let status = child.wait();
    PROGRAM.store(0, Ordering::SeqCst);
    status
}

extern "C" fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a valid siginfo to a handler set with SA_SIGINFO.
    let from_a_process = unsafe { (*info).si_code } <= 0;
    let pid = PROGRAM.load(Ordering::SeqCst);
    if !from_a_process {
        // The kernel sends signals of the terminal to the whole foreground group, so the program has got it, too.
        return;
    }
    if pid > 0 {
        // SAFETY: async-signal-safe; our own child, which cannot be reaped while PROGRAM holds it but for an instant.
        unsafe { libc::kill(pid, signal) };
    } else {
        EARLY.store(signal, Ordering::SeqCst);
    }
}

/// From now on, writing a file above the size limit (`ulimit -f`) gives an error instead of ending the command. Programs
/// that the command starts begin with the disposition from before.
pub fn survive_file_limits() {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    std::mem::forget(Signals::catch(&[libc::SIGXFSZ], nothing));
}

/// The dispositions from before, restored when dropped. A signal that was ignored (nohup, a background job) stays ignored,
/// here and in the program.
pub struct Signals(Vec<(libc::c_int, libc::sigaction)>);

/// A handler as SA_SIGINFO wants it. It must be async-signal-safe.
pub type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

impl Signals {
    pub fn catch(signals: &[libc::c_int], handler: Handler) -> Signals {
        let mut before = Vec::new();
        for signal in signals {
            // SAFETY: sigaction structs are valid when zero; the handler has the SA_SIGINFO signature and is
            // async-signal-safe; a handler, unlike SIG_IGN, is not inherited by the program.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                libc::sigaction(*signal, std::ptr::null(), &mut old);
                if old.sa_sigaction == libc::SIG_IGN {
                    continue;
                }
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(*signal, &action, std::ptr::null_mut());
                before.push((*signal, old));
            }
        }
        Signals(before)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: puts back what `catch` has read.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
    }
}
