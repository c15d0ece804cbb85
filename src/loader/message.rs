//! What the loader tells the person at the terminal while it works: building an adapter takes half a minute.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use graphpatch_core::plain::plain;
use graphpatch_locks::OnceLock;

/// The device and inode of stderr when the program began in which the library is preloaded. The inner `None`: it was closed.
static AT_START: OnceLock<Option<(u64, u64)>> = OnceLock::new();

/// To be called when a program begins. From then on messages go only to the stderr that the program began with. A file
/// that the program opens as descriptor 2 later belongs to the program, and nothing is written there.
pub fn begin() {
    let _ = AT_START.set(stderr());
}

/// One line for the person at the terminal; a closed stderr is no error.
pub fn say(text: &str) {
    if AT_START
        .get()
        .is_none_or(|at_start| at_start.is_some() && *at_start == stderr())
    {
        let _ = writeln!(std::io::stderr(), "graphpatch: {}", plain(text));
    }
}

fn stderr() -> Option<(u64, u64)> {
    let copy = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
    let info = File::from(copy).metadata().ok()?;
    Some((info.dev(), info.ino()))
}
