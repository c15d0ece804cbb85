//! What the loader tells the person at the terminal while it works: building an adapter takes half a minute.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::held::Held;
use graphpatch_core::plain::plain;
use graphpatch_locks::RwLock;

/// The device and inode of stderr when the program began in which the library is preloaded. The inner `None`: it was closed.
static AT_START: RwLock<Option<Option<(u64, u64)>>> = RwLock::new(None);

/// To be called when a program begins, and when a forked process goes on with another stderr. From then on messages go only to
/// the stderr that the program began with. A file that the program opens as descriptor 2 later belongs to the program, and
/// nothing is written there.
pub fn begin() {
    *AT_START.write() = Some(stderr());
}

/// To be called in a process that somebody attaches to, unless it uses the library itself: nothing is said there. Whoever
/// attaches gets an answer.
pub fn silence() {
    AT_START.write().get_or_insert(None);
}

/// One line for the person at the terminal. A closed stderr is no error, nor is a pipe that nobody reads any more; where writing
/// would wait (a full pipe, a terminal that stands still), nothing is said: the program would wait with us.
pub fn say(text: &str) {
    let at_start = *AT_START.read();
    let is_same = |at_start: Option<_>| at_start.is_some() && at_start == stderr();
    if at_start.is_none_or(is_same) && takes_more() {
        let _held = Held::new();
        let line = format!("graphpatch: {}\n", plain(text));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Whether writing to stderr goes on at once. A pipe that says so has room for a page.
fn takes_more() -> bool {
    let mut poll = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one place, which is a local.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLOUT != 0 }
}

fn stderr() -> Option<(u64, u64)> {
    let copy = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
    let info = File::from(copy).metadata().ok()?;
    Some((info.dev(), info.ino()))
}
