//! What a sweep has measured so far, on the disk, so that it can be interrupted: JSON lines beside the table, of which
//! the first says which sweep it is.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::voice::Stop;

use super::table::{Row, Settings};

/// The open journal of a running sweep. No other process can open it meanwhile.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The journal of a table.
    pub fn beside(table: &Path) -> PathBuf {
        let mut name = OsString::from(table);
        name.push(".journal");
        name.into()
    }

    /// Opens the journal, and returns the rows that an interrupted sweep with the same settings has left there.
    ///
    /// # Errors
    ///
    /// The journal is open in another process, belongs to a sweep with other settings, or cannot be written.
    pub fn open(
        path: PathBuf,
        settings: &Settings,
        restart: bool,
    ) -> Result<(Journal, Vec<Row>), Stop> {
        let fail = |why: std::io::Error| Stop::not_written(&path, &why);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        if file.try_lock().is_err() {
            return Err(Stop::usage(format!(
                "{}: another sweep is writing it; give this one another -o FILE",
                path.display()
            )));
        }
        let mut bytes = Vec::new();
        if !restart {
            file.read_to_end(&mut bytes).map_err(fail)?;
        }
        let mut lines = whole_lines(&bytes);
        let mut rows = Vec::new();
        let mut kept = 0;
        if let Some(first) = lines.next() {
            let known: Option<Settings> = serde_json::from_slice(first).ok();
            let same = known.as_ref() == Some(settings);
            // A journal with other settings but without rows may be overwritten, as nothing is lost.
            if !same && (known.is_none() || lines.clone().next().is_some()) {
                return Err(Stop::usage(format!(
                    "{}: an interrupted sweep with other settings left it; give the same program, patch, slice and metrics to go \
                     on with that one, --restart to begin anew, or another -o FILE",
                    path.display()
                )));
            }
            kept = if same { first.len() + 1 } else { 0 };
            for line in lines {
                let Ok(row) = serde_json::from_slice(line) else {
                    break;
                };
                kept += line.len() + 1;
                rows.push(row);
            }
        }
        file.set_len(kept as u64).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        let mut journal = Journal { path, file };
        if kept == 0 {
            journal.line(settings)?;
        }
        Ok((journal, rows))
    }

    /// Adds a row. From then on an interruption of the sweep does not lose it.
    pub fn add(&mut self, row: &Row) -> Result<(), Stop> {
        self.line(row)
    }

    fn line(&mut self, what: &impl serde::Serialize) -> Result<(), Stop> {
        let mut line = serde_json::to_vec(what)
            .map_err(|why| Stop::usage(format!("{}: {why}", self.path.display())))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|why| Stop::usage(format!("{}: {why}", self.path.display())))
    }

    /// Removes the journal: the table has everything now.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Journal {
    /// A program that another thread is starting right now has a copy of the descriptor until its `exec`, and with it the lock.
    /// So the lock is released by hand.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// The lines that were written completely. An interruption may leave the last one half written. After a power failure, a
/// file may also end in zeros that were never overwritten.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let written = bytes.iter().position(|byte| *byte == 0);
    let bytes = &bytes[..written.unwrap_or(bytes.len())];
    let whole = bytes.iter().rposition(|byte| *byte == b'\n');
    let bytes = &bytes[..whole.map_or(0, |end| end + 1)];
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| &line[..line.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sweep::table::tests::sample;

    fn settings(patch: &str) -> Settings {
        Settings {
            patch: patch.into(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_sweep_goes_on() {
        let dir = tempfile::tempdir().expect("dir");
        let path = Journal::beside(&dir.path().join("t.csv"));
        assert!(path.ends_with("t.csv.journal"));
        let open = |patch: &str, restart| {
            Journal::open(path.clone(), &settings(patch), restart).map_err(|stop| stop.message)
        };
        let rows = sample().rows;
        let (mut journal, none) = open("zero", false).expect("open");
        assert!(none.is_empty());
        journal.add(&rows[0]).expect("add");
        journal.add(&rows[1]).expect("add");
        assert!(
            open("zero", false)
                .map(|_| ())
                .expect_err("locked")
                .contains("another sweep")
        );
        drop(journal);
        // The last row was half written.
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(b"{\"node\":\"a").expect("write");
        drop(file);
        assert!(
            open("add:1", false)
                .map(|_| ())
                .expect_err("other")
                .contains("--restart")
        );
        let (mut journal, some) = open("zero", false).expect("open");
        assert_eq!(some, rows[..2]);
        journal.add(&rows[2]).expect("add");
        drop(journal);
        let (journal, some) = open("zero", false).expect("open");
        assert_eq!(some, rows[..3]);
        drop(journal);
        let (journal, none) = open("add:1", true).expect("open");
        assert!(none.is_empty());
        journal.remove();
        assert!(!path.exists());
        std::fs::write(&path, "something else\n").expect("write");
        assert!(open("zero", false).is_err());
    }

    /// The end may be damaged in any way: cut at any byte or inside a character, filled with zeros, or followed by other bytes.
    #[test]
    fn a_torn_end_drops_its_tail() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t.csv.journal");
        let open = || Journal::open(path.clone(), &settings("zero"), false).map_err(|s| s.message);
        let mut rows = sample().rows;
        rows.truncate(3);
        for row in &mut rows {
            row.why = Some("é".into());
        }
        let (mut journal, _) = open().expect("open");
        rows.iter().for_each(|row| journal.add(row).expect("add"));
        drop(journal);
        let whole = std::fs::read(&path).expect("read");
        let begin = 1 + whole
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("settings");
        let tails: [&[u8]; 5] = [
            b"",
            &[0; 512],
            &[0xff, 0xfe, b'\n'],
            b"\n\n",
            b"\xc3\n{\"node\":",
        ];
        for cut in 0..=whole.len() {
            for tail in tails {
                // If the settings are cut and other bytes follow, it may be a file of the user's, which is refused.
                if cut < begin && !tail.is_empty() && tail[0] != 0 {
                    continue;
                }
                std::fs::write(&path, [&whole[..cut], tail].concat()).expect("write");
                let (mut journal, some) = open().unwrap_or_else(|why| panic!("{cut}: {why}"));
                let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
                // A row that lacks only its newline may be accepted if the tail begins with one.
                let (least, most) = (ends(&whole[..cut]), ends(&whole[..cut]) + 1);
                let had = |lines: usize| lines.saturating_sub(1).min(rows.len());
                assert!(
                    (had(least)..=had(most)).contains(&some.len()),
                    "{cut} {tail:?}"
                );
                assert_eq!(some, rows[..some.len()], "{cut} {tail:?}");
                for row in &rows[some.len()..] {
                    journal.add(row).expect("add");
                }
                drop(journal);
                assert_eq!(std::fs::read(&path).expect("read"), whole, "{cut} {tail:?}");
            }
        }
    }
}
