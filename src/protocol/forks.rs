//! `graphpatch sweep --fork`: one process of the program waits where its first model is about to run, and is forked there once
//! for each run that is wanted. These are the files by which the command and that process meet.
//!
//! The command writes the folder of a job into a FIFO, and a zero byte behind it. The waiting process forks; the child goes on
//! with the job's options and outputs. Its number and how it ended are files in the job's folder.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// What ends the path of a job in the FIFO.
pub const END: u8 = 0;

/// The folder in which the command and the waiting process meet.
#[derive(Debug, Clone)]
pub struct Meeting(pub PathBuf);

impl Meeting {
    /// The FIFO through which jobs come.
    pub fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// Says that this process is the one that waits. False if another one is it already.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn claim(&self) -> io::Result<bool> {
        let claimed = self.0.join("claimed");
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(claimed)
        {
            Ok(_) => Ok(true),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Says why the program cannot be forked. Where that cannot be written, the command sees the process end.
    pub fn refuse(&self, why: &str) {
        let _ = put(&self.0, REFUSED, why);
    }

    /// Why the program cannot be forked, if a process has said so.
    pub fn refusal(&self) -> Option<String> {
        fs::read_to_string(self.0.join(REFUSED)).ok()
    }
}

const REFUSED: &str = "refused";
const PROCESS: &str = "process";
const STATUS: &str = "status";

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    pub fn reports(&self) -> PathBuf {
        self.0.join("reports")
    }

    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// Says which process the run is.
    pub fn began(&self, process: i32) {
        let _ = put(&self.0, PROCESS, &process.to_string());
    }

    pub fn process(&self) -> Option<i32> {
        number(&self.0, PROCESS)
    }

    /// Says how the process ended, as the system tells it.
    pub fn ended(&self, status: i32) {
        let _ = put(&self.0, STATUS, &status.to_string());
    }

    pub fn status(&self) -> Option<i32> {
        number(&self.0, STATUS)
    }
}

fn number(folder: &Path, name: &str) -> Option<i32> {
    fs::read_to_string(folder.join(name)).ok()?.parse().ok()
}

/// Writes a file that appears as a whole.
fn put(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let part = folder.join(format!("{name}.part"));
    fs::write(&part, text)?;
    fs::rename(part, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_meet() {
        let dir = tempfile::tempdir().expect("dir");
        let meeting = Meeting(dir.path().into());
        assert!(meeting.claim().expect("claim") && !meeting.claim().expect("claim"));
        assert_eq!(meeting.refusal(), None);
        meeting.refuse("it has 2 threads");
        assert_eq!(meeting.refusal().as_deref(), Some("it has 2 threads"));
        assert!(Meeting("/no/such".into()).claim().is_err());
        let run = RunFolder(dir.path().into());
        assert_eq!((run.process(), run.status()), (None, None));
        run.began(17);
        run.ended(256);
        assert_eq!((run.process(), run.status()), (Some(17), Some(256)));
    }
}
