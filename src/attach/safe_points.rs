//! The safe points of a process: the system calls at which a thread can hold no lock that loading a library takes, so that it
//! may be borrowed there.
//!
//! The locks are those of the C library's memory and of the dynamic linker. Neither is held during the system calls listed
//! here, with three exceptions, which the thread's stack tells: a `futex` by which the C library waits for a lock of its own, a
//! constructor or a callback that the dynamic linker or `fork` has called, and a handler of a signal that came at any moment.

use std::io::{IoSlice, IoSliceMut, Result};
use std::ops::Range;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::image::Image;
use super::maps::{self, Mapping};
use super::process::{Process, is_libc};

const CALLS: [libc::c_long; 42] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendfile,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_ioctl,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pause,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_timerfd_settime,
    libc::SYS_io_getevents,
];

/// Functions by which a program waits for itself. Where the C library waits for a lock of its own, another one stands there.
const WAITS: [&str; 10] = [
    "pthread_cond_wait",
    "pthread_cond_timedwait",
    "pthread_cond_clockwait",
    "pthread_join",
    "pthread_timedjoin_np",
    "pthread_barrier_wait",
    "sem_wait",
    "sem_timedwait",
    "sem_clockwait",
    "syscall",
];

/// Functions that may hold such a lock while they call others.
const HOLDS: [&str; 14] = [
    "_dl_catch_exception",
    "_dl_catch_error",
    "dl_iterate_phdr",
    "dlopen",
    "dlmopen",
    "dlclose",
    "dlsym",
    "dlvsym",
    "fork",
    "_Fork",
    "system",
    "exit",
    "quick_exit",
    "pthread_create",
];

/// The room that the calls need below the thread's stack pointer.
const ROOM: u64 = 64 << 10;
/// A first thread's stack grows by itself; only the frame has to fit in what is there.
const ROOM_OF_GROWING: u64 = 24 << 10;
/// How much of a stack is looked at.
const LOOKED_AT: u64 = 512 << 10;

/// Where a thread stands.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The number of its system call.
    pub call: i64,
    /// The call's second argument.
    pub second: u64,
    /// The address after the instruction that made the call.
    pub place: u64,
    /// The stack pointer.
    pub stack: u64,
}

/// Why a thread cannot be borrowed where it stands. The texts go on after "of its threads, ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    Computes,
    AtCall,
    Loads,
    Waits,
    Stack,
    Handles,
}

impl Unfit {
    pub fn text(self) -> &'static str {
        match self {
            Unfit::Computes => "computed without a system call",
            Unfit::AtCall => "stood at system calls during which locks may be held",
            Unfit::Loads => "were loading a library, forking or ending",
            Unfit::Waits => "waited for a lock",
            Unfit::Stack => "had too small a stack",
            Unfit::Handles => "were in a signal handler",
        }
    }
}

/// What is known of the process's code.
pub struct SafePoints {
    pub pid: u32,
    pub libc: Image,
    /// Where `syscall; ret` stands.
    pub call_and_return: u64,
    /// Where a handler of a signal returns to.
    pub restorer: u64,
    linker: Range<u64>,
}

impl SafePoints {
    /// # Errors
    ///
    /// What of the C library is not as it is known.
    pub fn of(process: &Process) -> std::result::Result<SafePoints, String> {
        let all = process.mappings();
        let first = process.named(is_libc).ok_or("has no C library")?;
        let libc = Image::read(process.pid, all, first)?;
        let unknown = || "has a C library that is not known; start it with `graphpatch run --live`";
        let begin = libc.function("getppid").ok_or_else(unknown)?;
        let call_and_return = libc.instructions(&[0x0f, 0x05, 0xc3], Some(begin));
        // mov $15, %rax; syscall
        let sigreturn = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
        let restorer = libc.instructions(&sigreturn, None);
        let (Some(call_and_return), Some(restorer)) = (call_and_return, restorer) else {
            return Err(unknown().into());
        };
        let linker = process
            .named(|name| name.starts_with("ld-linux") || name.starts_with("ld-2."))
            .map(|first| extent(all, first))
            .unwrap_or_default();
        Ok(SafePoints {
            pid: process.pid,
            libc,
            call_and_return,
            restorer,
            linker,
        })
    }

    /// Why a thread that stands there cannot be borrowed.
    pub fn why_not(&self, at: &Point) -> Option<Unfit> {
        if !CALLS.contains(&at.call) || self.linker.contains(&at.place) {
            return Some(Unfit::AtCall);
        }
        let Some(stack) = self.stack(at.stack) else {
            return Some(Unfit::Stack);
        };
        if at.call == libc::SYS_futex {
            // Waiting, with or without a mask of bits; all else changes locks.
            const WAIT: u64 = 0;
            const WAIT_BITS: u64 = 9;
            if !matches!(at.second & 0x7f, WAIT | WAIT_BITS) {
                return Some(Unfit::AtCall);
            }
            if self.libc.code.contains(&at.place) && !self.is_programs_wait(at.place, &stack) {
                return Some(Unfit::Waits);
            }
        }
        self.who_called(&stack)
    }

    /// Whether a function of [`WAITS`] is the innermost one with a name.
    fn is_programs_wait(&self, place: u64, stack: &[u64]) -> bool {
        let mut named = std::iter::once(&place)
            .chain(stack)
            .filter(|word| self.libc.code.contains(word))
            .filter_map(|word| {
                let mut names = self.libc.names_at(*word).peekable();
                names.peek()?;
                Some(self.libc.names_at(*word).any(|name| WAITS.contains(&name)))
            });
        named.next() == Some(true)
    }

    /// Whether the stack has a return into a function of [`HOLDS`], or out of a handler of a signal. Words that were left there
    /// by earlier calls count too: then another thread or moment is taken.
    fn who_called(&self, stack: &[u64]) -> Option<Unfit> {
        stack.iter().find_map(|word| {
            if *word == self.restorer {
                return Some(Unfit::Handles);
            }
            let inside = self.libc.code.contains(word);
            let holds = inside && self.libc.names_at(*word).any(|name| HOLDS.contains(&name));
            holds.then_some(Unfit::Loads)
        })
    }

    /// The words of a stack from `from` on; none if there is too little room below.
    fn stack(&self, from: u64) -> Option<Vec<u64>> {
        // The mappings of threads come and go.
        let all = maps::of(self.pid).ok()?;
        let of = all.iter().find(|one| one.range.contains(&from))?;
        let room = match of.path.as_os_str() == "[stack]" {
            true => ROOM_OF_GROWING,
            false => ROOM,
        };
        if !of.writable || from - of.range.start < room {
            return None;
        }
        let length = (of.range.end - from).min(LOOKED_AT) & !7;
        let mut bytes = vec![0_u8; usize::try_from(length).ok()?];
        read(self.pid, from, &mut bytes).ok()?;
        let words = bytes.chunks_exact(8).map(|word| {
            word.iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        Some(words.collect())
    }
}

fn extent(all: &[Mapping], first: &Mapping) -> Range<u64> {
    let of = all.iter().filter(|one| one.inode == first.inode);
    of.map(|one| one.range.clone())
        .reduce(|one, two| one.start.min(two.start)..one.end.max(two.end))
        .unwrap_or_default()
}

/// Reads memory of the process.
pub fn read(pid: u32, from: u64, into: &mut [u8]) -> Result<()> {
    let remote = [RemoteIoVec {
        base: from as usize,
        len: into.len(),
    }];
    let wanted = into.len();
    let got = process_vm_readv(
        Pid::from_raw(pid as i32),
        &mut [IoSliceMut::new(into)],
        &remote,
    )?;
    whole(got, wanted)
}

/// Writes memory of the process.
pub fn write(pid: u32, to: u64, bytes: &[u8]) -> Result<()> {
    let remote = [RemoteIoVec {
        base: to as usize,
        len: bytes.len(),
    }];
    let put = process_vm_writev(Pid::from_raw(pid as i32), &[IoSlice::new(bytes)], &remote)?;
    whole(put, bytes.len())
}

fn whole(done: usize, wanted: usize) -> Result<()> {
    match done == wanted {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
