//! Waiting for another program no longer than somebody would wait for it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::environment;

/// The variable that says how many seconds a compiler may take.
pub const LIMIT: &str = "GRAPHPATCH_COMPILER_LIMIT";
const USUAL_SECONDS: u64 = 120;

/// How long a compiler may take.
pub fn limit() -> Duration {
    let named = environment::text(LIMIT).and_then(|text| text.parse().ok());
    Duration::from_secs(named.unwrap_or(USUAL_SECONDS))
}

/// Runs it to its end; `None` where that did not come in time. Then it is ended, with all that it has started.
///
/// # Errors
///
/// That it does not start, or what waiting for it says. `ECHILD`: the process ignores SIGCHLD, so nothing is left to wait for.
pub fn status(command: &mut Command, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    // A group of its own, as a compiler's driver starts the compiler proper.
    let mut child = command.process_group(0).spawn()?;
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    end(&mut child);
    Ok(None)
}

fn end(child: &mut Child) {
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: the group was made for the child, which is not waited for yet: the number is still its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    // It is dead; there is nothing to do about an error here.
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

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
