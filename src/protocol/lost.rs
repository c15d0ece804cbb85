//! What preloaded processes write about programs and a libtorch that the library did not see: a file of lines in the folder
//! of reports.

use std::collections::BTreeSet;
use std::path::Path;

/// The file's name. Each process appends to it.
pub const FILE: &str = "lost";
/// The beginning of a line that names a program which was started without the library.
pub const STARTED: &str = "started ";
/// The line that says that a libtorch was loaded without any hook seeing it.
pub const LATE: &str = "late";

/// What the library did not see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The programs that were started without the library.
    pub programs: BTreeSet<String>,
    /// Whether a process loaded a libtorch without any hook seeing it.
    pub late: bool,
}

impl Lost {
    /// Reads the file. If it does not exist, nothing was lost.
    pub fn load(dir: &Path) -> Lost {
        let bytes = std::fs::read(dir.join(FILE)).unwrap_or_default();
        let mut lost = Lost::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            match line.strip_prefix(STARTED) {
                Some(program) => _ = lost.programs.insert(program.to_string()),
                None => lost.late |= line == LATE,
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Lost::load(dir.path()), Lost::default());
        std::fs::write(
            dir.path().join(FILE),
            "started /a b\nstarted c\nlate\nstarted c\nx",
        )
        .expect("write");
        let lost = Lost::load(dir.path());
        assert!(lost.late && lost.programs.iter().eq(["/a b", "c"]));
    }
}
