//! The times of a run, as a trace that Perfetto and Chrome read: the Trace Event Format, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use graphpatch_core::error::Error;
use graphpatch_core::file_error::not_written;
use graphpatch_core::output::replace;
use graphpatch_protocol::Report;
use graphpatch_protocol::trace::{Event, EventKind};
use serde_json::{Value, json};

/// Writes the trace.
pub fn save(file: &Path, events: &[Event], reports: &[Report]) -> Result<(), Error> {
    let trace = json!({ "traceEvents": all(events, reports), "displayTimeUnit": "ns" });
    replace(file, format!("{trace}\n").as_bytes()).map_err(|why| not_written(file, &why))
}

fn all(events: &[Event], reports: &[Report]) -> Vec<Value> {
    let first = events.iter().map(|event| event.begin).min().unwrap_or(0);
    let programs: BTreeMap<u32, String> = reports.iter().map(|r| (r.pid, title(r))).collect();
    let named = programs.iter().map(|(pid, name)| {
        json!({ "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name } })
    });
    named
        .chain(events.iter().map(|event| one(event, first)))
        .collect()
}

/// The program's name, and its rank under a launcher.
fn title(report: &Report) -> String {
    let name = Path::new(&report.program).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    match &report.rank {
        Some(rank) => format!("{name} (rank {rank})"),
        None => name.into_owned(),
    }
}

/// One event of the trace. A patch is an instant of its thread; all others have a beginning and a length. Times are in
/// microseconds since the first event.
fn one(event: &Event, first: u64) -> Value {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let last = || event.path.rsplit('.').next().unwrap_or_default();
    let (category, name, about) = match event.what {
        EventKind::Run => ("run", &*event.detail, "root"),
        EventKind::Scope => ("scope", last(), "class"),
        EventKind::Operation => ("operation", last(), "schema"),
        EventKind::Patch => ("patch", &*event.detail, "patch"),
    };
    let mut shown = json!({
        "cat": category,
        "name": name,
        "pid": event.pid,
        "tid": event.thread,
        "ts": microseconds(event.begin - first),
        "args": { "path": event.path, about: event.detail },
    });
    match event.what {
        EventKind::Patch => {
            shown["ph"] = json!("i");
            shown["s"] = json!("t");
        }
        _ => {
            shown["ph"] = json!("X");
            shown["dur"] = json!(microseconds(event.end - event.begin));
        }
    }
    shown
}
