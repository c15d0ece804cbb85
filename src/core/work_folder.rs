//! A folder in which a file is written before it takes its place. It is removed with all that is in it.
//!
//! The crate `tempfile` would do, but the first name that it draws on a thread asks the C library for memory past this
//! library's allocator, and ends a process that has none.

use std::fs::DirBuilder;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number in the next folder's name.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// How many names are tried. Processes of other PID namespaces may use the same ones.
const MOST_NAMES: usize = 1000;

/// A new folder that nobody else may look into.
#[derive(Debug)]
pub(crate) struct WorkFolder(PathBuf);

impl WorkFolder {
    /// # Errors
    ///
    /// The folder cannot be made below `above`.
    pub(crate) fn new_in(above: &Path) -> Result<WorkFolder> {
        for _ in 0..MOST_NAMES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = above.join(format!(".graphpatch-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(why) if why.kind() == ErrorKind::AlreadyExists => {}
                made => return made.map(|()| WorkFolder(path)),
            }
        }
        Err(Error::from(ErrorKind::AlreadyExists))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // A folder that cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_that_are_taken_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let next = NEXT.load(Ordering::Relaxed);
        for number in next..next + 20 {
            let name = format!(".graphpatch-{}-{number}", std::process::id());
            std::fs::write(dir.path().join(name), "another's").unwrap();
        }
        let made = WorkFolder::new_in(dir.path()).unwrap();
        std::fs::write(made.path().join("new"), "").unwrap();
        let mode = std::fs::metadata(made.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(made);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 20);
        assert!(WorkFolder::new_in(&dir.path().join("absent")).is_err());
    }
}
