//! When scopes and operations of a process began and ended: one event a line, in a file beside its report. Lines are only
//! appended, so a process that is killed leaves all lines that it has written.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Run,
    Scope,
    Operation,
    Patch,
}

/// Something that happened on a thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub pid: u32,
    pub thread: i32,
    pub what: EventKind,
    /// The path of the node; empty for a run.
    pub path: String,
    /// The class of a scope, the schema of an operation, the text of a patch, the name of a run's root.
    pub detail: String,
    /// Nanoseconds since 1970.
    pub begin: u64,
    pub end: u64,
}

/// The file that belongs to the report `name`.
pub fn trace_name(name: &str) -> String {
    let middle = name.strip_prefix("report-").unwrap_or(name);
    format!(
        "trace-{}.jsonl",
        middle.strip_suffix(".json").unwrap_or(middle)
    )
}

/// Adds events to a file.
///
/// # Errors
///
/// The file cannot be written.
pub fn append(file: &Path, events: impl Iterator<Item = Event>) -> std::io::Result<()> {
    let opened = OpenOptions::new().create(true).append(true).open(file)?;
    let mut writer = BufWriter::new(opened);
    for event in events {
        serde_json::to_writer(&mut writer, &event)?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}

/// The events of all processes, in the order of time. A line that is incomplete is skipped.
pub fn load_all(dir: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("trace-") || !name.ends_with(".jsonl") {
            continue;
        }
        let text = std::fs::read(entry.path()).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        events.extend(lines.filter_map(|line| serde_json::from_slice::<Event>(line).ok()));
    }
    // Of two that begin at once, the longer one is around the other.
    events.sort_by_key(|event| (event.begin, std::cmp::Reverse(event.end)));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_in_order() {
        let dir = tempfile::tempdir().expect("dir");
        let event = |begin, end| Event {
            pid: 7,
            thread: 8,
            what: EventKind::Operation,
            path: "a.b".into(),
            detail: "aten::add.Tensor".into(),
            begin,
            end,
        };
        let file = dir.path().join(trace_name("report-7-1.json"));
        append(&file, [event(5, 6), event(1, 2)].into_iter()).expect("write");
        append(&file, [event(1, 9)].into_iter()).expect("write");
        let mut torn = std::fs::read(&file).expect("read");
        torn.extend(b"{\"pid\":7,");
        std::fs::write(&file, torn).expect("write");
        std::fs::write(dir.path().join("report-7-1.json"), "{}").expect("write");
        let times: Vec<_> = load_all(dir.path())
            .iter()
            .map(|e| (e.begin, e.end))
            .collect();
        assert_eq!(times, [(1, 9), (1, 2), (5, 6)]);
    }
}
