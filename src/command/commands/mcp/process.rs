//! One call: a process, whose output is kept up to a limit, and which ends when the client wants it to or its time is over.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

/// The most bytes of one stream that are kept: half of them from its beginning, half from its end.
pub const MOST: usize = 24 << 10;
/// How often a running process is looked at.
const STEP: Duration = Duration::from_millis(20);
/// How long a process that was told to end may take to do so.
const GRACE: Duration = Duration::from_secs(3);
/// How long a stream is read after the process's end: what the process has started may keep it open.
const LATE: Duration = Duration::from_secs(1);

/// How a process ended, and its output.
pub struct Ended {
    pub how: How,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    By(ExitStatus),
    TimedOut,
    /// The client has taken its request back, or has gone.
    Cancelled,
}

/// Runs the command to its end, for at most so long. A message on `cancelled`, or the end of its senders, ends it, too.
pub fn call(command: &mut Command, limit: Duration, cancelled: &Receiver<()>) -> io::Result<Ended> {
    // Its own group, so that what it has started ends with it.
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = Stream::of(child.stdout.take());
    let stderr = Stream::of(child.stderr.take());
    let how = wait(&mut child, Instant::now().checked_add(limit), cancelled)?;
    Ok(Ended {
        how,
        stdout: stdout.text(),
        stderr: stderr.text(),
    })
}

/// Waits for the process's end, which is forced when the time is over. `None` is a time that never comes.
fn wait(child: &mut Child, end: Option<Instant>, cancelled: &Receiver<()>) -> io::Result<How> {
    let has_time = || end.is_none_or(|end| Instant::now() < end);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(How::By(status));
        }
        let how = match cancelled.recv_timeout(STEP) {
            Err(RecvTimeoutError::Timeout) if has_time() => continue,
            Err(RecvTimeoutError::Timeout) => How::TimedOut,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => How::Cancelled,
        };
        stop(child)?;
        return Ok(how);
    }
}

/// Ends the process and its group: `graphpatch run` passes SIGTERM on to the program and removes its files.
fn stop(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let tell = |signal| group.map(|group| kill_process_group(group, signal));
    tell(Signal::TERM);
    let end = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            tell(Signal::KILL);
            child.wait()?;
            return Ok(());
        }
        thread::sleep(STEP);
    }
    // What of its group has not ended by itself.
    tell(Signal::KILL);
    Ok(())
}

/// A stream that is read to its end by a thread of its own.
struct Stream {
    kept: Arc<Mutex<Kept>>,
    end: Receiver<()>,
}

impl Stream {
    fn of(stream: Option<impl Read + Send + 'static>) -> Stream {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (sender, end) = mpsc::channel();
        if let Some(stream) = stream {
            let kept = Arc::clone(&kept);
            thread::spawn(move || read(stream, &kept, &sender));
        }
        Stream { kept, end }
    }

    fn text(self) -> String {
        let _ = self.end.recv_timeout(LATE);
        self.kept.lock().text()
    }
}

fn read(mut stream: impl Read, kept: &Mutex<Kept>, end: &Sender<()>) {
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => kept.lock().take(&buffer[..count]),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Nobody may wait for it any more.
    let _ = end.send(());
}

/// The beginning and the end of a stream.
#[derive(Default)]
struct Kept {
    first: Vec<u8>,
    last: VecDeque<u8>,
    lost: usize,
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        let room = (MOST / 2 - self.first.len()).min(bytes.len());
        self.first.extend(&bytes[..room]);
        self.last.extend(&bytes[room..]);
        let over = self.last.len().saturating_sub(MOST / 2);
        self.last.drain(..over);
        self.lost += over;
    }

    /// The text; where a part is left out, whole lines are, if there are any.
    fn text(&mut self) -> String {
        let last = self.last.make_contiguous();
        if self.lost == 0 {
            return String::from_utf8_lossy(&[&self.first, &*last].concat()).into_owned();
        }
        let newline = |byte: &u8| *byte == b'\n';
        let to = self
            .first
            .iter()
            .rposition(newline)
            .map_or(self.first.len(), |at| at + 1);
        let from = last.iter().position(newline).map_or(0, |at| at + 1);
        let lost = self.lost + (self.first.len() - to) + from;
        format!(
            "{}\n… {lost} bytes are left out here; ask for less (a path, a depth, another pattern) …\n{}",
            String::from_utf8_lossy(&self.first[..to]).trim_end(),
            String::from_utf8_lossy(&last[from..])
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn output_and_code_come_back() {
        let (_hold, cancelled) = mpsc::channel();
        let mut command = shell("echo a; echo b >&2; exit 3");
        let ended = call(&mut command, Duration::MAX, &cancelled).expect("sh");
        assert_eq!((&*ended.stdout, &*ended.stderr), ("a\n", "b\n"));
        assert!(matches!(ended.how, How::By(status) if status.code() == Some(3)));
    }

    #[test]
    fn long_output_keeps_its_ends() {
        let (_hold, cancelled) = mpsc::channel();
        let ended = call(&mut shell("seq 1 100000"), LONG, &cancelled).expect("sh");
        assert!(ended.stdout.len() < MOST + 200);
        assert!(ended.stdout.starts_with("1\n2\n") && ended.stdout.ends_with("\n100000\n"));
        let told = ended.stdout.lines().find(|line| line.starts_with('…'));
        let lost: usize = told
            .expect("a remark")
            .split(' ')
            .nth(1)
            .expect("a number")
            .parse()
            .expect("one");
        let kept: usize = ended
            .stdout
            .lines()
            .filter(|line| !line.starts_with('…'))
            .map(|line| line.len() + 1)
            .sum();
        // `seq 1 100000` writes 588,895 bytes.
        assert_eq!(lost + kept, 588_895);
    }

    #[test]
    fn whoever_is_cancelled_or_late_ends_with_what_it_started() {
        let (hold, cancelled) = mpsc::channel();
        let ended = call(&mut shell("sleep 1000 & wait"), Duration::ZERO, &cancelled).expect("sh");
        assert_eq!(ended.how, How::TimedOut);
        drop(hold);
        let script = "trap '' TERM; echo $$; sleep 1000 & wait; sleep 1000";
        let ended = call(&mut shell(script), LONG, &cancelled).expect("sh");
        assert_eq!(ended.how, How::Cancelled);
    }
}
