//! What this process serves: the one state, behind one lock.

use std::path::PathBuf;
use std::sync::Arc;

use super::changes;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::python;
use super::socket::SocketId;
use crate::filter::Filter;
use graphpatch_locks::Mutex;
use graphpatch_session::Session;

/// What is served.
pub(super) struct Served {
    pub(super) session: Arc<Session>,
    pub(super) file: PathBuf,
    /// The process that the file belongs to.
    pub(super) owner: u32,
    /// All sockets of the thread: a forked child closes them. Each is opened and closed under this lock, which a fork waits for.
    pub(super) open: Vec<SocketId>,
    pub(super) filter: Filter,
    /// Tells a thread that has been stopped from the next one.
    pub(super) number: u64,
    /// The thread is about to end: whoever wants to listen anew waits for that.
    pub(super) is_ending: bool,
}

/// Whether, and what, this process serves.
pub(super) static SERVED: Mutex<State> = Mutex::new(State {
    served: None,
    started: 0,
    own: None,
});

pub(super) struct State {
    pub(super) served: Option<Served>,
    /// How many threads were started.
    pub(super) started: u64,
    /// The session that was attached only for live control. It stays attached, idle, when live control has stopped.
    pub(super) own: Option<Arc<Session>>,
}

/// Called by the thread before it gives its last answers.
pub(super) fn ending(number: u64) {
    if let Some(served) = &mut SERVED.lock().served
        && served.number == number
    {
        served.is_ending = true;
    }
}

/// Called by the thread at its end. `sockets` closes its sockets; the lock is held meanwhile, so that a fork waits for that.
pub(super) fn done(number: u64, sockets: impl FnOnce()) {
    let mut state = SERVED.lock();
    sockets();
    if state
        .served
        .as_ref()
        .is_some_and(|served| served.number == number)
        && let Some(served) = state.served.take()
    {
        served.remove_file();
    }
}

/// Opens or closes sockets of the thread, under the lock. `change` updates the list of the open ones.
pub(super) fn change(number: u64, change: impl FnOnce(&mut Vec<SocketId>)) {
    let mut state = SERVED.lock();
    if let Some(served) = &mut state.served
        && served.number == number
    {
        change(&mut served.open);
    }
}

/// The session that was attached only for live control is attached no more. Calls of modules in Python are as they were, as soon
/// as Python lets a thread of ours have its lock.
pub(super) fn detached(filter: Filter) {
    SERVED.lock().own = None;
    if !filter.is_closed() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        python::end();
    }
}

impl Served {
    pub(super) fn remove_file(&self) {
        if self.owner == std::process::id() && !self.filter.is_closed() {
            let _ = std::fs::remove_file(&self.file);
            let _ = std::fs::remove_file(changes::file_of(&self.file));
        }
    }
}
