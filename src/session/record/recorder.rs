//! The tape of a run, and the lock that a report may share it by.

use std::sync::Arc;

use graphpatch_locks::{Mutex, MutexGuard};

use super::Tape;

/// The tape of one run: owned by the run alone, or shared with reports that are written while the run goes on.
#[derive(Debug)]
pub(crate) enum Recorder {
    Own(Box<Tape>),
    Shared(Arc<Mutex<Tape>>),
}

/// The tape while it is being written.
pub(crate) enum Writing<'a> {
    Own(&'a mut Tape),
    Shared(MutexGuard<'a, Tape>),
}

impl Recorder {
    pub(crate) fn tape(&mut self) -> Writing<'_> {
        match self {
            Recorder::Own(tape) => Writing::Own(tape),
            Recorder::Shared(tape) => Writing::Shared(tape.lock()),
        }
    }

    pub(crate) fn into_tape(self) -> Tape {
        match self {
            Recorder::Own(tape) => *tape,
            Recorder::Shared(tape) => std::mem::take(&mut *tape.lock()),
        }
    }
}

impl std::ops::Deref for Writing<'_> {
    type Target = Tape;

    fn deref(&self) -> &Tape {
        match self {
            Writing::Own(tape) => tape,
            Writing::Shared(tape) => tape,
        }
    }
}

impl std::ops::DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Tape {
        match self {
            Writing::Own(tape) => tape,
            Writing::Shared(tape) => tape,
        }
    }
}
