//! A file of two bytes beside a report. A process maps it into memory while it may still open files. Later the bytes say
//! whether something is missing in the report.

use std::path::Path;

/// How many bytes the file has.
pub const SIZE: usize = 2;
/// The byte that is not 0 when the process did something after its last report.
pub const OWN: usize = 0;
/// The byte that is not 0 when a forked child did something before it could write a report.
pub const CHILD: usize = 1;

/// The file that belongs to the report `name`.
pub fn seal_name(name: &str) -> String {
    let middle = name.strip_prefix("report-").unwrap_or(name);
    format!("seal-{}", middle.strip_suffix(".json").unwrap_or(middle))
}

/// What a person is told of the process `pid`, whose file this is.
pub fn notes(file: &Path, pid: u32) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let is_set = |at: usize| bytes.get(at).is_some_and(|byte| *byte != 0);
    let mut notes = Vec::new();
    if is_set(OWN) {
        notes.push(format!(
            "process {pid} limited its own system calls (seccomp): what it did after that was patched, but is in no output and no count"
        ));
    }
    if is_set(CHILD) {
        notes.push(format!(
            "a forked child of process {pid} limited its own system calls (seccomp): what it did is in no output and no count"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_note() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join(seal_name("report-7-1.json"));
        assert!(file.ends_with("seal-7-1") && notes(&file, 7).is_empty());
        for (bytes, words) in [
            ([0, 0], &[][..]),
            ([1, 0], &["process 7 limited"]),
            ([0, 1], &["child of process 7"]),
        ] {
            std::fs::write(&file, bytes).expect("write");
            let found = notes(&file, 7);
            assert_eq!(found.len(), words.len());
            assert!(
                found
                    .iter()
                    .zip(words)
                    .all(|(note, words)| note.contains(words)),
                "{found:?}"
            );
        }
    }
}
