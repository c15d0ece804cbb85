//! When scopes and operations of this process began and ended, in a file beside its report.

use std::path::Path;

use graphpatch_protocol::trace::{self, Event, EventKind};
use graphpatch_session::Session;
use graphpatch_session::times::{self, Span};

/// Appends the times that were noted since the last call.
pub(super) fn write(session: &Session, pid: u32, file: &Path) -> std::io::Result<()> {
    let spans = session.take_times();
    if spans.is_empty() {
        return Ok(());
    }
    trace::append(file, spans.into_iter().map(|span| event(pid, &span)))
}

fn event(pid: u32, span: &Span) -> Event {
    let path = match (&*span.scope, span.name) {
        (scope, None) => scope.to_owned(),
        ("", Some(name)) => name.to_string(),
        (scope, Some(name)) => format!("{scope}.{name}"),
    };
    Event {
        pid,
        thread: span.thread,
        what: match span.what {
            times::SpanKind::Run => EventKind::Run,
            times::SpanKind::Scope => EventKind::Scope,
            times::SpanKind::Operation => EventKind::Operation,
            times::SpanKind::Patch => EventKind::Patch,
        },
        path,
        detail: span.detail.to_string(),
        begin: span.begin,
        end: span.end,
    }
}
