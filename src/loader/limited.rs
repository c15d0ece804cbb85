//! Running another program with a limit on how long it may hang.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::environment;

/// The variable that says how many seconds a compiler may stand still.
pub const LIMIT: &str = "GRAPHPATCH_COMPILER_LIMIT";
const USUAL_SECONDS: u64 = 120;
/// A compiler that keeps computing may take this many times the limit in total.
const BUSY: u32 = 10;

/// How long a compiler may go without using processor time. A limit on the whole time would end a compiler that is only
/// slow because the machine is busy.
pub fn limit() -> Duration {
    let named = environment::text(LIMIT).and_then(|text| text.parse().ok());
    Duration::from_secs(named.unwrap_or(USUAL_SECONDS))
}

/// Runs the command to its end. `None` if it used no processor time for `limit`, or did not end within ten times that. Then
/// it is killed, with all processes that it has started.
///
/// # Errors
///
/// The command cannot be started, or waiting for it fails. `ECHILD` means that this process ignores SIGCHLD, so that the
/// kernel keeps no exit status.
pub fn status(command: &mut Command, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    // It gets a process group of its own, since a compiler's driver starts further processes.
    let mut child = command.process_group(0).spawn()?;
    let start = Instant::now();
    let (mut computed, mut moved) = (0, start);
    while moved.elapsed() < limit && start.elapsed() < limit * BUSY {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
        if moved.elapsed() > limit / 2 {
            let now = ticks_of_group(child.id());
            if now > computed {
                (computed, moved) = (now, Instant::now());
            }
        }
    }
    end(&mut child);
    Ok(None)
}

/// The processor time that the living processes of a group have used, in clock ticks.
fn ticks_of_group(group: u32) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let stats = processes.flatten().filter_map(|process| {
        let name = process.file_name();
        name.to_str()?.parse::<u32>().ok()?;
        std::fs::read_to_string(process.path().join("stat")).ok()
    });
    stats.filter_map(|stat| ticks_in(&stat, group)).sum()
}

/// The processor time in a process's `stat` (see proc(5)), if the process is of that group.
fn ticks_in(stat: &str, group: u32) -> Option<u64> {
    // The name in parentheses may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    (number(2)? == u64::from(group)).then_some(number(11)? + number(12)?)
}

fn end(child: &mut Child) {
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: the group was made for the child, which is not waited for yet: the number is still its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    // The child is dead or about to die; an error here would change nothing.
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_computes_is_not_taken_for_hanging() {
        let mut computes = Command::new("sh");
        computes.args([
            "-c",
            "end=$(($(date +%s%N) + 1200000000)); while [ $(date +%s%N) -lt $end ]; do :; done",
        ]);
        let ended = status(&mut computes, Duration::from_millis(400)).expect("started");
        assert!(ended.is_some_and(|status| status.success()));
        let stat = "7 (a) b) c) S 1 42 42 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_in(stat, 42), Some(7));
        assert_eq!(ticks_in(stat, 43), None);
    }

    #[test]
    fn what_does_not_end_is_ended_with_its_children() {
        // The grandchild keeps the pipe's end open for as long as it lives.
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "sleep 1000 & wait"]).stdout(writer);
        let ended = status(&mut hangs, Duration::from_millis(300));
        assert_eq!(ended.expect("started"), None);
        drop(hangs);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("closed");
        let limit = Duration::from_secs(60);
        for (program, good) in [("true", true), ("false", false)] {
            let ended = status(&mut Command::new(program), limit).expect("ran");
            assert_eq!(ended.map(|status| status.success()), Some(good));
        }
        assert!(status(&mut Command::new("/no/such"), limit).is_err());
    }
}
