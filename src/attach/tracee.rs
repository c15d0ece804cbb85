//! One thread of the process under ptrace. All calls come from the thread of ours that seized it.

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use libc::{c_int, c_void, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

/// The note of the registers beyond the general ones, in the layout of XSAVE.
const NT_X86_XSTATE: usize = 0x202;
/// The event of a stop that `PTRACE_INTERRUPT` or a stop of the whole process makes.
const EVENT_STOP: c_int = 128;
/// The error by which the kernel says that a system call begins anew unless a handler runs, and its relatives.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;

/// Why a thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// We asked for it.
    Interrupted,
    /// The whole process was stopped.
    Group,
    /// At the beginning or the end of a system call.
    Call,
    /// A signal is about to be delivered.
    Signal(c_int),
    /// Another event.
    Other,
    /// The thread, or the process, has ended.
    Gone,
}

/// A thread that was seized. It is given back when dropped.
#[derive(Debug)]
pub struct Tracee {
    tid: Pid,
    /// Why it stands still; none: it runs.
    stop: Option<Stop>,
}

impl Tracee {
    /// Seizes a thread. It runs on.
    pub fn seize(tid: i32) -> Result<Tracee> {
        let tid = Pid::from_raw(tid);
        ptrace::seize(tid, Options::PTRACE_O_TRACESYSGOOD)?;
        Ok(Tracee { tid, stop: None })
    }

    pub fn tid(&self) -> i32 {
        self.tid.as_raw()
    }

    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Asks the thread to stop, wherever it is.
    pub fn interrupt(&self) -> Result<()> {
        Ok(ptrace::interrupt(self.tid)?)
    }

    /// Looks whether it has stopped.
    pub fn look(&mut self) -> Option<Stop> {
        if self.stop.is_none() {
            let mut status = 0;
            // SAFETY: the status is a local. Signals above 31 have no name in nix, which would lose the stop.
            let answer = unsafe {
                libc::waitpid(
                    self.tid.as_raw(),
                    &raw mut status,
                    libc::WNOHANG | libc::__WALL,
                )
            };
            self.stop = match answer {
                0 => None,
                1.. => Some(decode(status)),
                _ => Some(Stop::Gone),
            };
        }
        self.stop
    }

    /// Waits until it stops, until `end` at most.
    pub fn wait(&mut self, end: Instant) -> Option<Stop> {
        loop {
            let found = self.look();
            if found.is_some() || Instant::now() >= end {
                return found;
            }
            wait_for_child(end);
        }
    }

    /// Stops the thread where it waits, until `end` at most. Signals are delivered before that, and so is the end of a call, if
    /// the thread was followed.
    pub fn halt(&mut self, end: Instant) -> bool {
        if self.interrupt().is_err() {
            return false;
        }
        loop {
            match self.wait(end) {
                Some(Stop::Interrupted) => return true,
                // Any stop takes the request back.
                Some(Stop::Signal(_) | Stop::Call)
                    if self.interrupt().is_ok() && self.resume(false).is_ok() => {}
                _ => return false,
            }
        }
    }

    /// Lets it run on, to the next beginning or end of a system call if `to_call`. A signal that it stopped at is delivered.
    pub fn resume(&mut self, to_call: bool) -> Result<()> {
        let (request, signal) = match self.stop {
            Some(Stop::Group) => (libc::PTRACE_LISTEN, 0),
            Some(Stop::Signal(signal)) if to_call => (libc::PTRACE_SYSCALL, signal),
            Some(Stop::Signal(signal)) => (libc::PTRACE_CONT, signal),
            _ if to_call => (libc::PTRACE_SYSCALL, 0),
            _ => (libc::PTRACE_CONT, 0),
        };
        self.request(request, 0, signal as usize)?;
        self.stop = None;
        Ok(())
    }

    /// The signal that it stopped at will not be delivered.
    pub fn forget_signal(&mut self) {
        if let Some(Stop::Signal(_)) = self.stop {
            self.stop = Some(Stop::Other);
        }
    }

    pub fn registers(&self) -> Result<user_regs_struct> {
        Ok(ptrace::getregs(self.tid)?)
    }

    pub fn set_registers(&self, registers: user_regs_struct) -> Result<()> {
        Ok(ptrace::setregs(self.tid, registers)?)
    }

    /// All other registers that a thread has.
    pub fn extended(&self) -> Result<Vec<u8>> {
        let mut area = vec![0_u8; 1 << 16];
        let mut vector = vector(&mut area);
        self.request(
            libc::PTRACE_GETREGSET,
            NT_X86_XSTATE,
            &raw mut vector as usize,
        )?;
        let length = vector.iov_len;
        area.truncate(length);
        Ok(area)
    }

    pub fn set_extended(&self, area: &mut [u8]) -> Result<()> {
        let mut vector = vector(area);
        self.request(
            libc::PTRACE_SETREGSET,
            NT_X86_XSTATE,
            &raw mut vector as usize,
        )
    }

    /// The signals that the thread has blocked.
    pub fn mask(&self) -> Result<u64> {
        let mut mask = 0_u64;
        self.request(
            libc::PTRACE_GETSIGMASK,
            size_of::<u64>(),
            &raw mut mask as usize,
        )?;
        Ok(mask)
    }

    pub fn set_mask(&self, mask: u64) -> Result<()> {
        self.request(
            libc::PTRACE_SETSIGMASK,
            size_of::<u64>(),
            &raw const mask as usize,
        )
    }

    fn request(&self, request: libc::c_uint, address: usize, data: usize) -> Result<()> {
        // SAFETY: the requests of this file read or write what `data` points to (a local, of the size that is told) or take
        // it as a number; the kernel checks that the thread is ours and stands still.
        let answer = unsafe {
            libc::ptrace(
                request,
                self.tid.as_raw(),
                address as *mut c_void,
                data as *mut c_void,
            )
        };
        match answer {
            -1 => Err(Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Gives the thread back. One that waits in a system call which stops do not begin anew has this done here.
    fn give_back(&mut self) -> Result<()> {
        if self.stop.is_none() {
            self.halt(Instant::now() + Duration::from_secs(1));
        }
        if self.stop == Some(Stop::Interrupted) {
            let registers = self.registers()?;
            let again = begun_anew(self.tid(), registers);
            if again != registers {
                self.set_registers(again)?;
            }
        }
        let signal = match self.stop {
            Some(Stop::Signal(signal)) => signal,
            _ => 0,
        };
        self.request(libc::PTRACE_DETACH, 0, signal as usize)
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.stop != Some(Stop::Gone) {
            // A thread that has ended meanwhile needs nothing.
            let _ = self.give_back();
        }
    }
}

fn vector(area: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: area.as_mut_ptr().cast(),
        iov_len: area.len(),
    }
}

fn decode(status: c_int) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    match (status >> 16, signal) {
        (EVENT_STOP, libc::SIGTRAP) => Stop::Interrupted,
        (EVENT_STOP, _) => Stop::Group,
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        (0, signal) => Stop::Signal(signal),
        _ => Stop::Other,
    }
}

/// Has the kernel keep stops of threads for [`Tracee::wait`], instead of an interruption of ours.
pub fn keep_news() {
    // SAFETY: sets are valid when zero; pointers are to locals or NULL.
    unsafe {
        let set = of_children();
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

fn of_children() -> libc::sigset_t {
    // SAFETY: a set is valid when zero, and the pointer is to a local.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Waits for news of any thread, for a short time at most.
pub fn wait_for_child(end: Instant) {
    const MOST: Duration = Duration::from_millis(5);
    let left = end.saturating_duration_since(Instant::now()).min(MOST);
    let timeout = libc::timespec {
        tv_sec: 0,
        tv_nsec: left.as_nanos() as libc::c_long,
    };
    let set = of_children();
    // SAFETY: pointers to locals; nobody asks for what came.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
}

/// Whether the kernel has broken a system call off that begins anew when the thread runs on.
pub fn is_broken_off(registers: &user_regs_struct) -> bool {
    (registers.orig_rax as i64) >= 0 && RESTARTS.contains(&(registers.rax as i64))
}

/// The registers by which a system call that our stop has broken off is made anew. Some calls answer EINTR after any stop:
/// their caller would see us.
pub fn begun_anew(tid: i32, registers: user_regs_struct) -> user_regs_struct {
    const ALWAYS: [libc::c_long; 7] = [
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_io_getevents,
    ];
    let number = registers.orig_rax as libc::c_long;
    let broken = registers.rax as i64 == -i64::from(libc::EINTR) && ALWAYS.contains(&number);
    match broken && !has_signal(tid) {
        true => user_regs_struct {
            rip: registers.rip - 2,
            rax: registers.orig_rax,
            orig_rax: u64::MAX,
            ..registers
        },
        false => registers,
    }
}

/// Whether a signal waits for the thread: then the call was broken off by that.
fn has_signal(tid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let mask = |name: &str| {
        text.lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok())
            .unwrap_or_default()
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let stopped = |signal: c_int, event: c_int| decode(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(libc::SIGTRAP, EVENT_STOP), Stop::Interrupted);
        assert_eq!(stopped(libc::SIGSTOP, EVENT_STOP), Stop::Group);
        assert_eq!(stopped(libc::SIGTRAP | 0x80, 0), Stop::Call);
        assert_eq!(stopped(40, 0), Stop::Signal(40));
        assert_eq!(decode(0), Stop::Gone);
    }
}
