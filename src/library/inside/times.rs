//! When scopes and operations of this process began and ended, in a file beside its report.

use std::path::Path;

use graphpatch_protocol::trace::{self, Event, What};
use graphpatch_session::Session;
use graphpatch_session::times::{self, Slice};

/// Appends the times that were noted since the last call.
pub(super) fn write(session: &Session, pid: u32, file: &Path) -> std::io::Result<()> {
    let slices = session.take_times();
    if slices.is_empty() {
        return Ok(());
    }
    trace::append(file, slices.into_iter().map(|slice| event(pid, &slice)))
}

fn event(pid: u32, slice: &Slice) -> Event {
    let path = match (&*slice.scope, slice.name) {
        (scope, None) => scope.to_owned(),
        ("", Some(name)) => name.to_string(),
        (scope, Some(name)) => format!("{scope}.{name}"),
    };
    Event {
        pid,
        thread: slice.thread,
        what: match slice.what {
            times::What::Run => What::Run,
            times::What::Scope => What::Scope,
            times::What::Operation => What::Operation,
            times::What::Patch => What::Patch,
        },
        path,
        detail: slice.detail.to_string(),
        begin: slice.begin,
        end: slice.end,
    }
}
