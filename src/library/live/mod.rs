//! Live control: a thread of ours serves a unix socket, by which other programs of this user look at the process and patch
//! it while it runs. Nothing listens unless somebody asks for it.
//!
//! | file | owns |
//! |---|---|
//! | `mod` | beginning and ending |
//! | `served` | the one state: which session is served, where the socket lies, which sockets are open |
//! | `socket` | the socket's file, and who may connect |
//! | `serve` | the thread: it waits, reads lines, writes answers |
//! | `client` | one client: its lines, and what ends when it disconnects |
//! | `requests` | what each request does with the session |
//! | `changes` | tells other processes that patches have changed |
//! | `quiet` | threads that no signal reaches |
//! | `attached` | how a process begins that `graphpatch attach` has had load the library |
//! | `python` | has calls of modules known, in a Python program that runs already |
//!
//! The thread calls the session only, never libtorch. It blocks all signals, takes no name of its own, and keeps no process
//! alive. A forked child closes the sockets that it inherited; the socket's file stays the parent's.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod attached;
mod changes;
mod client;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod python;
mod quiet;
mod requests;
mod serve;
mod served;
mod socket;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::filter::Filter;
use graphpatch_core::error::{Error, Result};
use graphpatch_loader::sockets;
use graphpatch_session::Session;
use requests::Serving;
use served::{SERVED, Served};

/// How long [`stop`] waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the handler that removes the file at the end is there.
static AT_END: AtomicBool = AtomicBool::new(false);

/// Begins to serve a session, by a socket in the folder that the environment names.
///
/// # Errors
///
/// As [`start_in`].
pub fn start(session: &Arc<Session>) -> Result<()> {
    start_in(session, None)
}

/// Begins to serve a session, by a socket in `folder`, or in the one that the environment names.
///
/// # Errors
///
/// [`Error::State`] when another session is served; [`Error::File`] when there can be no socket.
fn start_in(session: &Arc<Session>, folder: Option<&Path>) -> Result<()> {
    wait_for_one_that_is_ending();
    let mut state = SERVED.lock();
    if let Some(served) = &state.served {
        let elsewhere = folder.is_some_and(|folder| served.file.parent() != Some(folder));
        return match Arc::ptr_eq(&served.session, session) {
            true if elsewhere => Err(Error::State(format!(
                "it listens already, at {}: name the folder above it in XDG_RUNTIME_DIR",
                served.file.display()
            ))),
            true => Ok(()),
            false => Err(Error::State(format!(
                "this process serves another session already, at {}; end that with gp_live_stop",
                served.file.display()
            ))),
        };
    }
    let (listener, file) = match folder {
        Some(folder) => socket::listen(folder)?,
        None => socket::listen(&sockets::folder()?)?,
    };
    let filter = Filter::begin();
    state.started += 1;
    let number = state.started;
    state.served = Some(Served {
        session: Arc::clone(session),
        file: file.clone(),
        owner: std::process::id(),
        open: vec![listener.id],
        filter,
        number,
        is_ending: false,
    });
    if !AT_END.swap(true, Ordering::AcqRel) {
        // SAFETY: a function of this library; the C library calls it before it unloads the library.
        unsafe { libc::atexit(at_exit) };
    }
    let serving = Serving::new(Arc::clone(session), filter, changes::file_of(&file));
    let started = serve::spawn(listener, serving, number);
    if started.is_err() {
        state.served = None;
        drop(state);
        let _ = std::fs::remove_file(file);
    }
    started
}

/// The session that is served, or else the one that was attached only for live control.
pub fn known() -> Option<Arc<Session>> {
    wait_for_one_that_is_ending();
    let state = SERVED.lock();
    let served = state.served.as_ref().map(|served| &served.session);
    served.or(state.own.as_ref()).cloned()
}

/// Remembers a session that was attached only for live control.
pub fn keep(session: &Arc<Session>) {
    SERVED.lock().own = Some(Arc::clone(session));
}

/// Stops listening. Waits until the thread has removed the patches that came by the socket.
pub fn stop() {
    if let Some(number) = wake() {
        wait_for_end(number);
    }
}

/// A thread that was told to end may be there still. Its session may be attached no more, and clients of its socket are cut off.
fn wait_for_one_that_is_ending() {
    let number = {
        let state = SERVED.lock();
        let ending = state.served.as_ref().filter(|served| served.is_ending);
        ending.map(|served| served.number)
    };
    if let Some(number) = number {
        wait_for_end(number);
    }
}

/// Waits until the thread of this number has ended, for `PATIENCE` at most, as it may be busy with a request.
fn wait_for_end(number: u64) {
    let is_there = || {
        SERVED
            .lock()
            .served
            .as_ref()
            .is_some_and(|served| served.number == number)
    };
    let end = Instant::now() + PATIENCE;
    while is_there() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tells the thread to end, and returns its number.
fn wake() -> Option<u64> {
    let state = SERVED.lock();
    let served = state.served.as_ref()?;
    for id in served.open.iter().filter(|id| id.is_ours()) {
        // SAFETY: it is open while it is listed. The thread that waits at it wakes up.
        unsafe { libc::shutdown(id.descriptor, libc::SHUT_RDWR) };
    }
    Some(served.number)
}

/// Called in a forked child, which does not have the thread. It closes its copies of the parent's sockets.
pub fn forget_in_child() {
    // A lock that another thread of the parent held stays locked. Then none of our code runs in this child.
    if let Some(mut state) = SERVED.try_lock()
        && let Some(served) = state.served.take()
    {
        for id in served.open.iter().filter(|id| id.is_ours()) {
            // SAFETY: the child's copy, which nobody else in it knows.
            unsafe { libc::close(id.descriptor) };
        }
        // It is leaked on purpose, so that no destructor runs in the child.
        std::mem::forget(served);
    }
}

extern "C" fn at_exit() {
    if let Some(state) = SERVED.try_lock()
        && let Some(served) = &state.served
    {
        served.remove_file();
    }
}
