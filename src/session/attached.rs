//! The sessions that this process's runs belong to, and the switch that every caller reads first.
//!
//! At most two sessions are attached: one of the program's own, and beside it the one of `graphpatch run`. Patches and
//! recording are switched in a session; [`ACTIVE`] says in one load whether any attached session wants runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use graphpatch_locks::RwLock;

use crate::{Session, memory};
use graphpatch_core::error::{Error, Result};

/// An [`Active`] as a number; the adapter reads it before anything else.
pub static ACTIVE: AtomicU32 = AtomicU32::new(Active::Detached as u32);

/// Whether runs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Active {
    Detached = 0,
    /// A session is attached that neither records nor patches.
    Idle = 1,
    Wanted = 2,
}

fn set_active(active: Active) {
    ACTIVE.store(active as u32, Ordering::Relaxed);
}

/// The sessions that runs belong to.
static ATTACHED: RwLock<Attached> = RwLock::new(Attached {
    program: None,
    command: None,
});

/// A run belongs to the program's own session if that wants something of it, else to the command's.
#[derive(Clone)]
pub(crate) struct Attached {
    pub(crate) program: Option<Arc<Session>>,
    pub(crate) command: Option<Arc<Session>>,
}

impl Attached {
    fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.program.iter().chain(&self.command)
    }

    fn slot(&mut self, session: &Session) -> &mut Option<Arc<Session>> {
        match session.for_command {
            true => &mut self.command,
            false => &mut self.program,
        }
    }

    /// Sets [`ACTIVE`] to what the attached sessions want.
    fn store_active(&self) {
        let wants = |session: &Arc<Session>| session.wants_runs();
        set_active(if is_disabled() || self.all().next().is_none() {
            Active::Detached
        } else if self.all().any(wants) {
            Active::Wanted
        } else {
            Active::Idle
        });
    }
}

/// Set after a bug of ours was caught; nothing is recorded or patched any more.
static DISABLED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_disabled() -> bool {
    DISABLED.load(Ordering::Relaxed)
}

/// The attached session, unless a bug of ours has disabled everything. The program's own comes before the command's.
pub fn attached() -> Option<Arc<Session>> {
    attached_ones().all().next().cloned()
}

pub(crate) fn attached_ones() -> Attached {
    if is_disabled() {
        return Attached {
            program: None,
            command: None,
        };
    }
    ATTACHED.read().clone()
}

/// Adds a note about all runs to every session that may have had one.
pub fn note(text: &str) {
    for session in attached_ones().all() {
        session.note(text);
    }
}

/// Whether one of the sessions that [`note`] reaches has not met this number yet; see [`Session::first_note`].
pub fn first_note(about: u64) -> bool {
    let met = |session: &Arc<Session>| session.first_note(about);
    attached_ones().all().filter(|session| met(session)).count() > 0
}

/// Stops everything for good after a bug of ours. The host goes on as if we were not there.
pub fn disable(why: &str) {
    note(&format!(
        "an internal error ended recording and patching: {why}"
    ));
    DISABLED.store(true, Ordering::Relaxed);
    set_active(Active::Detached);
}

/// Stops everything for good after memory could not be allocated. The allocator calls this, so it takes no lock and allocates
/// nothing.
pub fn out_of_memory() {
    memory::note_lost();
    DISABLED.store(true, Ordering::Relaxed);
    set_active(Active::Detached);
}

/// Stops everything for good in a forked child whose locks may not be free. It takes no lock, so it leaves no note.
pub fn disable_in_child() {
    DISABLED.store(true, Ordering::Relaxed);
    set_active(Active::Detached);
}

impl Session {
    /// Makes this the session that runs belong to. Starting the adapter is left to `graphpatch_torch::attach`.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when another session is attached that is not the command's.
    pub fn make_current(self: &Arc<Self>) -> Result<()> {
        let mut attached = ATTACHED.write();
        let slot = attached.slot(self);
        if slot.as_ref().is_some_and(|other| !Arc::ptr_eq(other, self)) {
            return Err(Error::State(
                "another session is attached to this process; close it first".into(),
            ));
        }
        *slot = Some(self.clone());
        attached.store_active();
        Ok(())
    }

    /// Detaches the session from the process. Runs that have begun end as they began. False if it was not attached.
    pub fn detach(self: &Arc<Self>) -> bool {
        let mut attached = ATTACHED.write();
        let slot = attached.slot(self);
        let is_attached = slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, self));
        if is_attached {
            *slot = None;
            attached.store_active();
        }
        is_attached
    }

    /// Whether runs belong to this session.
    pub(crate) fn is_attached(self: &Arc<Self>) -> bool {
        let attached = ATTACHED.read();
        attached.all().any(|other| Arc::ptr_eq(other, self))
    }

    pub(crate) fn update_active(self: &Arc<Self>) {
        let attached = ATTACHED.read();
        if attached.all().any(|other| Arc::ptr_eq(other, self)) {
            attached.store_active();
        }
    }
}
