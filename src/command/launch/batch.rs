//! Starts programs that get no input, each in a process group of its own. So the terminal's signals reach only the command,
//! and a program can be ended together with all processes that it has started.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::process::Signals;

/// The signals by which a user or a service manager ends a command.
const CAUGHT: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// How often a program's state is checked, and how long a program may take to end after SIGTERM.
pub(super) const LOOK: Duration = Duration::from_millis(5);
const GRACE: Duration = Duration::from_secs(2);

static CAME: AtomicI32 = AtomicI32::new(0);

/// While this lives, a signal does not end the command, but ends every [`run`]. There may be only one at a time.
pub struct Interrupts(
    #[allow(dead_code, reason = "puts the dispositions back when dropped")] Signals,
);

impl Interrupts {
    /// Catches SIGINT, SIGTERM and SIGHUP, except where they are ignored.
    pub fn catch() -> Interrupts {
        CAME.store(0, Ordering::SeqCst);
        Interrupts(Signals::catch(&CAUGHT, note))
    }

    /// The signal that came.
    pub fn came(&self) -> Option<i32> {
        came()
    }
}

extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAME.store(signal, Ordering::SeqCst);
}

pub(super) fn came() -> Option<i32> {
    Some(CAME.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    With(ExitStatus),
    /// It took longer than the limit.
    TooLong,
    /// The command was told to end.
    Interrupted,
}

/// Runs the command to its end, with an empty stdin. Its whole process group is ended if it takes longer than `limit`, or if
/// [`Interrupts`] catches a signal. The program itself is also ended if this thread ends before it.
///
/// # Errors
///
/// The command cannot be started or waited for.
pub fn run(command: &mut Command, limit: Option<Duration>) -> io::Result<Ended> {
    let start = Instant::now();
    let mut child = spawn(command)?;
    loop {
        if let Some(status) = child.try_wait()? {
            // Processes that the program has left running are ended, too.
            send(group_of(&child), libc::SIGTERM);
            return Ok(Ended::With(status));
        }
        let ended = match came() {
            Some(_) => Ended::Interrupted,
            None if limit.is_some_and(|limit| start.elapsed() > limit) => Ended::TooLong,
            None => {
                sleep(LOOK);
                continue;
            }
        };
        end(&mut child)?;
        return Ok(ended);
    }
}

/// Starts the command with an empty stdin, in a process group of its own. It is ended if this thread ends before it.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).process_group(0);
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command.spawn()
}

/// Asks the group to end, and kills it if it does not.
fn end(child: &mut Child) -> io::Result<()> {
    end_group(group_of(child), || Ok(child.try_wait()?.is_some()))?;
    child.wait().map(|_| ())
}

/// The same for a group whose first process `is_over` asks about.
pub(super) fn end_group(
    group: i32,
    mut is_over: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    send(group, libc::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && !is_over()? {
        sleep(LOOK);
    }
    send(group, libc::SIGKILL);
    Ok(())
}

/// The group that [`spawn`] has made.
pub(super) fn group_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(0)
}

/// Sends a signal to a group that was made for a program.
pub(super) fn send(group: i32, signal: libc::c_int) {
    if group > 1 {
        // SAFETY: the group was made by this command, or for a job of it; its number is not given away while a member lives.
        // Where none does, there is no such group.
        unsafe { libc::killpg(group, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        command
    }

    #[test]
    fn programs_end_by_themselves_or_by_us() {
        let with = |code: i32| Ended::With(ExitStatus::from_raw(code << 8));
        assert_eq!(run(&mut shell("exit 3"), None).expect("run"), with(3));
        // There is no stdin to read from.
        assert_eq!(run(&mut shell("read line"), None).expect("run"), with(1));
        let limit = Some(Duration::from_millis(100));
        let start = Instant::now();
        let slow = run(&mut shell("sleep 60 & sleep 60"), limit).expect("run");
        assert_eq!(slow, Ended::TooLong);
        let deaf = run(&mut shell("trap '' TERM; sleep 60; sleep 60"), limit).expect("run");
        assert_eq!(deaf, Ended::TooLong);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert!(run(&mut Command::new("/nonexistent/program"), None).is_err());
    }

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}", file.display());
        run(&mut shell(&script), None).expect("run");
        let pid: i32 = std::fs::read_to_string(&file)
            .expect("pid")
            .trim()
            .parse()
            .expect("number");
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            state.map_or(true, |state| state.contains(") Z"))
        };
        let start = Instant::now();
        while !gone() && start.elapsed() < Duration::from_secs(20) {
            sleep(LOOK);
        }
        assert!(gone());
    }
}
