//! The one state of a preloaded process: whether it is one, and whether the session is attached. `attach` changes it.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, Ordering};

use super::written::Reports;
use graphpatch_locks::OnceLock;
use graphpatch_protocol::options::Options;
use graphpatch_session::Session;

/// Not a preloaded process, or one whose options are gone: hooks pass through.
const CLOSED: u8 = 0;
/// Preloaded; libtorch has not been seen.
const WAITING: u8 = 1;
/// One thread attaches; hooks pass through.
const ATTACHING: u8 = 2;
/// Attached, or failed to: nothing left to look for; reports are written.
const ATTACHED: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(CLOSED);
/// Leaked: it lives as long as the process.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());

/// What is known of a preloaded process.
pub(super) struct Process {
    pub(super) options: Options,
    pub(super) program: String,
    pub(super) rank: Option<String>,
    pub(super) session: OnceLock<Arc<Session>>,
    pub(super) libtorch: OnceLock<String>,
    /// Why the session could not attach.
    pub(super) error: OnceLock<String>,
    /// The process that this memory belongs to: a `vfork` child shares it but is another process.
    pub(super) pid: AtomicU32,
    /// Whether this process was forked from an attached one.
    pub(super) forked: AtomicBool,
    pub(super) reports: Reports,
    /// The file for what is lost.
    pub(super) lost: CString,
}

/// The process, if it is a preloaded one.
pub(super) fn get() -> Option<&'static Process> {
    // SAFETY: null, or a leaked box.
    unsafe { PROCESS.load(Ordering::Acquire).as_ref() }
}

/// The session that `graphpatch run` has attached to this process.
pub fn session() -> Option<Arc<Session>> {
    get()?.session.get().cloned()
}

/// Whether hooks still have to look for libtorch. Every hook asks this first.
#[inline]
pub fn is_waiting() -> bool {
    STATE.load(Ordering::Acquire) == WAITING
}

/// Whether this process itself has attached (or failed to), and so has something to report. A `vfork` child sees its
/// parent's state, but has not.
#[inline]
pub fn is_attached_here() -> bool {
    STATE.load(Ordering::Acquire) == ATTACHED
        && get().is_some_and(|process| process.pid.load(Ordering::Relaxed) == std::process::id())
}

/// Notes that this process is a preloaded one. False if that was noted before.
pub(super) fn begin(process: Process) -> bool {
    let process = Box::into_raw(Box::new(process));
    let none = std::ptr::null_mut();
    let first = PROCESS.compare_exchange(none, process, Ordering::AcqRel, Ordering::Acquire);
    match first {
        Ok(_) => STATE.store(WAITING, Ordering::Release),
        // SAFETY: made above, and given to nobody.
        Err(_) => drop(unsafe { Box::from_raw(process) }),
    }
    first.is_ok()
}

/// This process, forked from an attached one, goes on with options of its own.
pub(super) fn replace(process: Process) -> &'static Process {
    let process: &'static Process = Box::leak(Box::new(process));
    PROCESS.store(std::ptr::from_ref(process).cast_mut(), Ordering::Release);
    process
}

/// Whether the caller is the one that attaches: it calls [`attached`] at the end.
pub(super) fn begin_attaching() -> bool {
    STATE
        .compare_exchange(WAITING, ATTACHING, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// The session is attached, or has failed to.
pub(super) fn attached() {
    STATE.store(ATTACHED, Ordering::Release);
}

/// In a child whose memory cannot be trusted: hooks pass through from now on.
pub(super) fn give_up() {
    STATE.store(CLOSED, Ordering::Release);
}

/// How many threads the process has.
pub(super) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}
