//! What the loader tells the person at the terminal while it works: building an adapter takes half a minute.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use graphpatch_core::plain::plain;
use graphpatch_locks::RwLock;

/// The device and inode of stderr when the program began in which the library is preloaded. The inner `None`: it was closed.
static AT_START: RwLock<Option<Option<(u64, u64)>>> = RwLock::new(None);

/// To be called when a program begins, and when a forked process goes on with another stderr. From then on messages go only to the stderr that the program began with. A file
/// that the program opens as descriptor 2 later belongs to the program, and nothing is written there.
pub fn begin() {
    *AT_START.write() = Some(stderr());
}

/// One line for the person at the terminal; a closed stderr is no error.
pub fn say(text: &str) {
    let at_start = *AT_START.read();
    if at_start.is_none_or(|at_start| at_start.is_some() && at_start == stderr()) {
        let _ = writeln!(std::io::stderr(), "graphpatch: {}", plain(text));
    }
}

fn stderr() -> Option<(u64, u64)> {
    let copy = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
    let info = File::from(copy).metadata().ok()?;
    Some((info.dev(), info.ino()))
}
