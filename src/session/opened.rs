//! The operations of a run whose inside is shown (`inside.rs`).

use std::sync::atomic::Ordering;

use crate::record::Source;
use crate::session::Session;

/// What a run knows of operations whose inside is shown.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The session's setting when the run began.
    pub(crate) always: bool,
    /// Operations that have become scopes of the record, by the serial numbers of their tokens.
    pub(crate) serials: Vec<u32>,
    /// Where the operation whose first value comes next was called.
    pub(crate) source: Option<Source>,
}

impl Opened {
    pub(crate) fn of(session: &Session) -> Opened {
        Opened {
            always: session.inside.load(Ordering::Relaxed),
            ..Opened::default()
        }
    }
}
