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

    /// Opens it, and answers what an interrupted sweep of the same settings has left there.
    ///
    /// # Errors
    ///
    /// It is open already, is that of another sweep, or cannot be written.
    pub fn open(
        path: PathBuf,
        settings: &Settings,
        restart: bool,
    ) -> Result<(Journal, Vec<Row>), Stop> {
        let fail = |why: std::io::Error| Stop::usage(format!("{}: {why}", path.display()));
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
        let mut text = String::new();
        if !restart {
            file.read_to_string(&mut text).map_err(fail)?;
        }
        // A line without an end is one that was being written when everything stopped.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut rows = Vec::new();
        let mut kept = 0;
        if let Some(first) = lines.next() {
            let known: Option<Settings> = serde_json::from_str(first).ok();
            let same = known.as_ref() == Some(settings);
            // Without a row there is nothing to lose.
            if !same && (known.is_none() || lines.clone().next().is_some()) {
                return Err(Stop::usage(format!(
                    "{}: an interrupted sweep with other settings left it; give the same program, patch, slice and metrics to go \
                     on with that one, --restart to begin anew, or another -o FILE",
                    path.display()
                )));
            }
            kept = if same { first.len() + 1 } else { 0 };
            for line in lines {
                let Ok(row) = serde_json::from_str(line) else {
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

    /// Adds a row, which an interruption does not lose any more.
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
}
