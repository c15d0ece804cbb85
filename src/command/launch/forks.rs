//! A program that is started once and forked where its first model is about to run, once for each run that is wanted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use graphpatch_protocol::forks::{END, Meeting, RunFolder};
use parking_lot::Mutex;

use super::batch::{self, Ended, LOOK};
use super::outcome::Outcome;
use super::start;
use crate::voice::Stop;

/// The program that waits to be forked.
pub struct Forks {
    program: Mutex<Child>,
    meeting: Meeting,
    /// What it has written, and its reports.
    own: RunFolder,
    jobs: File,
}

impl Forks {
    /// Starts the program. The folder must be empty but for the reports' options; `command` is made with them.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn start(mut command: Command, folder: RunFolder) -> io::Result<Forks> {
        let meeting = Meeting(folder.0.clone());
        let jobs = open_fifo(&meeting)?;
        command.stdout(File::create(folder.stdout())?);
        command.stderr(File::create(folder.stderr())?);
        let program = Mutex::new(batch::spawn(&mut command)?);
        Ok(Forks {
            program,
            meeting,
            own: folder,
            jobs,
        })
    }

    /// Has the program forked for the run of this folder, and waits for the run's end as [`batch::run`] does.
    ///
    /// # Errors
    ///
    /// The program cannot be forked, or has ended; the message says why.
    pub fn run(&self, folder: &RunFolder, limit: Option<Duration>) -> Result<Ended, Stop> {
        let fail = |why: io::Error| Stop::usage(format!("{}: {why}", folder.0.display()));
        let mut job = folder.0.as_os_str().as_encoded_bytes().to_vec();
        job.push(END);
        // One write, which the kernel does not part, since several threads send jobs.
        (&self.jobs).write_all(&job).map_err(fail)?;
        let start = Instant::now();
        loop {
            if let Some(status) = folder.status() {
                batch::send(folder.process().unwrap_or(0), libc::SIGTERM);
                return Ok(Ended::With(ExitStatus::from_raw(status)));
            }
            let ended = match batch::came() {
                Some(_) => Ended::Interrupted,
                None if limit.is_some_and(|limit| start.elapsed() > limit) => Ended::TooLong,
                None => {
                    self.look(folder)?;
                    sleep(LOOK);
                    continue;
                }
            };
            let is_over = || Ok(folder.status().is_some());
            batch::end_group(folder.process().unwrap_or(0), is_over).map_err(fail)?;
            return Ok(ended);
        }
    }

    /// What the program had written before it was forked.
    pub fn written(&self) -> &RunFolder {
        &self.own
    }

    /// Fails if the program cannot be forked any more, or never could be.
    fn look(&self, folder: &RunFolder) -> Result<(), Stop> {
        let fail = |why: io::Error| Stop::usage(format!("--fork: {why}"));
        if let Some(why) = self.meeting.refusal() {
            return Err(Stop::usage(format!(
                "--fork: the program cannot be forked: {why}"
            )));
        }
        let Some(status) = self.program.lock().try_wait().map_err(fail)? else {
            return Ok(());
        };
        // It may have refused, or told of the run's end, right before.
        if let Some(why) = self.meeting.refusal() {
            return Err(Stop::usage(format!(
                "--fork: the program cannot be forked: {why}"
            )));
        }
        if folder.status().is_some() {
            return Ok(());
        }
        let code = start::exit_code(status);
        let error = Outcome::read(&self.own.reports());
        let why = error
            .error()
            .map_or(String::new(), |why| format!(": {why}"));
        let last = last_line(&self.own).map_or(String::new(), |line| format!(": {line}"));
        Err(Stop::usage(format!(
            "--fork: the program ended with code {code} before a model ran in it{why}{last}"
        )))
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        let mut program = self.program.lock();
        batch::send(batch::group_of(&program), libc::SIGKILL);
        let _ = program.wait();
    }
}

fn last_line(folder: &RunFolder) -> Option<String> {
    let text = std::fs::read(folder.stderr()).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// Makes the FIFO of jobs. It is opened for reading as well, so that opening it does not wait for the program.
fn open_fifo(meeting: &Meeting) -> io::Result<File> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(meeting.jobs().as_os_str().as_bytes())?;
    // SAFETY: a string of C.
    if unsafe { libc::mkfifo(path.as_ptr(), 0o600) } != 0 {
        return Err(io::Error::last_os_error());
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(meeting.jobs())
}
