//! Tells other processes that patches have changed: a byte more in the file `PID.changes` beside the socket.
//!
//! Python makes the file in a process whose values others keep beyond a run (`_prefix_cache.py`): what a server's prefix cache
//! keeps was computed with the patches of that time. Where there is no such file, nobody is told.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file that belongs to a socket.
pub(super) fn file_of(socket: &Path) -> PathBuf {
    socket.with_extension("changes")
}

/// Called after patches have changed, and before the client is answered: whoever asks after the answer finds the byte.
pub(super) fn tell(file: &Path) {
    let open = OpenOptions::new().append(true).open(file);
    // Without the file nobody waits.
    let _ = open.and_then(|mut open| open.write_all(b"."));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_where_somebody_waits_for_it() {
        let dir = tempfile::tempdir().expect("dir");
        let file = file_of(&dir.path().join("7.sock"));
        tell(&file);
        assert!(!file.exists());
        std::fs::write(&file, "").expect("file");
        tell(&file);
        tell(&file);
        assert_eq!(std::fs::read(file).expect("read"), b"..");
    }
}
