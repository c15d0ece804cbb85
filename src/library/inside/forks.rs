//! A process that waits where its first model is about to run. For each job that the command sends it is forked, and the child
//! goes on as the program would have, with the job's patches and outputs. So what the program does before, such as loading a
//! model, is done once.
//!
//! The waiting process itself never goes on: it ends when the command has no more jobs, or is gone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};

use super::lost;
use super::process::{self, Process};
use super::written::Reports;
use graphpatch_loader::imports;
use graphpatch_locks::OnceLock;
use graphpatch_protocol::forks::{END, Meeting, RunFolder};
use graphpatch_protocol::options::{OPTIONS_FILE, OPTIONS_VARIABLE, Options};

/// How often, in milliseconds, it is looked whether a child has ended.
const LOOK: libc::c_int = 5;

/// The process that waits.
struct Waiting {
    process: &'static Process,
    /// The command's folder, with what the process has written so far.
    meeting: RunFolder,
    jobs: File,
    /// What was read of the jobs that are not complete yet.
    read: Vec<u8>,
    children: Vec<(libc::pid_t, RunFolder)>,
}

/// Waits for jobs. Returns only in the children.
pub(super) fn wait(process: &'static Process, meeting: Meeting) {
    match begin(process, &meeting) {
        Ok(mut waiting) => {
            let handler = HandlerOfChildren::suspend();
            waiting.serve();
            drop(handler);
        }
        Err(why) => {
            meeting.refuse(&why);
            end(1);
        }
    }
}

/// Whether the process can be forked here.
fn begin(process: &'static Process, meeting: &Meeting) -> Result<Waiting, String> {
    if imports::has_python() {
        return Err("it is a Python program; there `pg.sweep` does what comes before once".into());
    }
    if process::threads() > 1 {
        return Err(format!(
            "it has {} threads where its first model runs, and a fork keeps one; OMP_NUM_THREADS=1 may help",
            process::threads()
        ));
    }
    if uses_a_card() {
        return Err("it uses a card, which a forked process cannot go on with".into());
    }
    if [1, 2].into_iter().any(is_pipe) {
        return Err(
            "what it writes goes through a pipe, in which the runs could not be told apart".into(),
        );
    }
    let fail = |why: io::Error| format!("{}: {why}", meeting.0.display());
    if !meeting.claim().map_err(fail)? {
        return Err("several of its processes run a model".into());
    }
    Ok(Waiting {
        process,
        meeting: RunFolder(meeting.0.clone()),
        jobs: File::open(meeting.jobs()).map_err(fail)?,
        read: Vec::new(),
        children: Vec::new(),
    })
}

/// A driver's device is open.
fn uses_a_card() -> bool {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    open.flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|file| {
            ["/dev/nvidia", "/dev/kfd"]
                .iter()
                .any(|device| file.to_string_lossy().starts_with(device))
        })
}

fn opened(descriptor: libc::c_int) -> io::Result<std::fs::Metadata> {
    std::fs::metadata(format!("/proc/self/fd/{descriptor}"))
}

fn is_pipe(descriptor: libc::c_int) -> bool {
    opened(descriptor).is_ok_and(|file| file.file_type().is_fifo())
}

impl Waiting {
    /// Returns in the children.
    fn serve(&mut self) {
        loop {
            self.reap();
            if !self.has_more() {
                continue;
            }
            let mut bytes = [0; 4096];
            match self.jobs.read(&mut bytes) {
                Ok(0) => end(0),
                Ok(count) => self.read.extend(&bytes[..count]),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => end(1),
            }
            while let Some(at) = self.read.iter().position(|byte| *byte == END) {
                let mut path: Vec<u8> = self.read.drain(..=at).collect();
                path.pop();
                let folder = RunFolder(PathBuf::from(std::ffi::OsString::from_vec(path)));
                if self.fork(folder) {
                    return;
                }
            }
        }
    }

    /// Waits for something to read; while there are children, not for long.
    fn has_more(&self) -> bool {
        let patience = if self.children.is_empty() { -1 } else { LOOK };
        let mut look = libc::pollfd {
            fd: self.jobs.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, which outlives the call.
        unsafe { libc::poll(&raw mut look, 1, patience) > 0 }
    }

    /// Tells of the children that have ended.
    fn reap(&mut self) {
        self.children.retain(|(child, folder)| {
            let mut status = 0;
            // SAFETY: asks about a child of this process.
            let ended = unsafe { libc::waitpid(*child, &raw mut status, libc::WNOHANG) } == *child;
            if ended {
                folder.ended(status);
            }
            !ended
        });
    }

    /// Whether this is the child.
    fn fork(&mut self, folder: RunFolder) -> bool {
        // SAFETY: asks for a number.
        let waiting = unsafe { libc::getpid() };
        // SAFETY: the process has one thread, so the child has all that it had.
        match unsafe { libc::fork() } {
            0 => {
                begin_child(waiting);
                if let Err(why) = self.go_on(&folder) {
                    graphpatch_loader::say(&format!("a run could not begin: {why}"));
                    end(127);
                }
                true
            }
            child if child > 0 => {
                // SAFETY: both processes say so, since it is not known which of them comes first.
                unsafe { libc::setpgid(child, child) };
                folder.began(child);
                self.children.push((child, folder));
                false
            }
            _ => {
                graphpatch_loader::say(&format!(
                    "it cannot be forked: {}",
                    io::Error::last_os_error()
                ));
                folder.ended(1 << 8);
                false
            }
        }
    }

    /// The child takes the job's options and outputs.
    fn go_on(&self, folder: &RunFolder) -> io::Result<()> {
        redirect(1, &self.meeting.stdout(), &folder.stdout())?;
        redirect(2, &self.meeting.stderr(), &folder.stderr())?;
        graphpatch_loader::message::begin();
        let file = folder.reports().join(OPTIONS_FILE);
        let options = Options::load(&file).map_err(|why| io::Error::other(why.to_string()))?;
        // SAFETY: no other thread reads the environment, since there is none.
        unsafe { std::env::set_var(OPTIONS_VARIABLE, &file) };
        let before = self.process;
        let process = process::replace(Process {
            lost: lost::file(&options.report_dir),
            options,
            program: before.program.clone(),
            rank: before.rank.clone(),
            session: OnceLock::new(),
            libtorch: before.libtorch.clone(),
            error: OnceLock::new(),
            pid: AtomicU32::new(std::process::id()),
            forked: AtomicBool::new(false),
            reports: Reports::begin(),
        });
        if let Some(session) = before.session.get()
            && let Err(why) = process.configure(session)
        {
            let _ = process.error.set(why.to_string());
        }
        process.write_first();
        Ok(())
    }
}

/// The child is a process group of its own, as a program that the command starts, and ends with the waiting process.
fn begin_child(waiting: libc::pid_t) {
    // SAFETY: calls that take numbers.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != waiting {
            end(1);
        }
    }
}

/// Has a descriptor stand for this file where it still is the one that the command has opened. The program may have put
/// something else there.
fn redirect(descriptor: libc::c_int, from: &Path, to: &Path) -> io::Result<()> {
    let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    let (Ok(now), Ok(from)) = (opened(descriptor), from.metadata()) else {
        return Ok(());
    };
    if !same(&now, &from) {
        return Ok(());
    }
    let file = File::options().append(true).create(true).open(to)?;
    // SAFETY: two descriptors of this process.
    match unsafe { libc::dup2(file.as_raw_fd(), descriptor) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process without a word: neither a report nor the program's own handlers. Its children are ended with it.
fn end(code: libc::c_int) -> ! {
    loop {
        // SAFETY: the plain system call.
        unsafe { libc::syscall(libc::SYS_exit_group, libc::c_long::from(code)) };
    }
}

/// The program's handler of SIGCHLD, which is not called while this lives. Children that have ended wait to be asked for.
struct HandlerOfChildren(libc::sigaction);

impl HandlerOfChildren {
    fn suspend() -> HandlerOfChildren {
        // SAFETY: plain structs, which are valid when zero; SIG_DFL is the handler zero.
        unsafe {
            let (default, mut before): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before);
            HandlerOfChildren(before)
        }
    }
}

impl Drop for HandlerOfChildren {
    fn drop(&mut self) {
        // SAFETY: puts back what was there.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const self.0, std::ptr::null_mut()) };
    }
}
