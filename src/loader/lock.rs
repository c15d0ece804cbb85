//! The lock that lets one of several processes build an adapter.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use super::limited;
use super::message::say;
use super::trust::Folder;

/// A lock that is held until dropped; the kernel frees it when its process dies. It only saves work. Where the file system
/// has no locks (some network file systems), several processes build the same file, and each puts its own there by a rename.
pub struct Lock(Option<File>);

impl Lock {
    /// Waits for a process that builds `name` in `dir`, up to a limit, since that process may have been stopped.
    pub fn wait(dir: &Folder, name: &str) -> Lock {
        let moving = Duration::from_secs(30);
        Lock::wait_at_most(dir, name, limited::limit() + moving)
    }

    fn wait_at_most(dir: &Folder, name: &str, limit: Duration) -> Lock {
        let Some(file) = dir.lock_file(OsStr::new(&format!("{name}.lock"))) else {
            return Lock(None);
        };
        let start = Instant::now();
        let mut told = false;
        while let Err(why) = file.try_lock() {
            if matches!(why, TryLockError::Error(_)) || start.elapsed() >= limit {
                return Lock(None);
            }
            if !told && start.elapsed() > Duration::from_secs(1) {
                say("another process builds the adapter; waiting for it…");
                told = true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Lock(Some(file))
    }

    /// Whether this process has the lock. Without it, the wait was too long, or the file system has no locks.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_not_for_ever() {
        let place = tempfile::tempdir().expect("dir");
        let dir = &Folder::open(place.path()).expect("folder");
        let soon = Duration::from_millis(50);
        let first = Lock::wait(dir, "a");
        assert!(first.is_held() && Lock::wait(dir, "b").is_held());
        assert!(!Lock::wait_at_most(dir, "a", soon).is_held());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::wait(dir, "a").is_held());
            std::thread::sleep(soon);
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().expect("thread"));
        });
        assert!(!Lock::wait(dir, "absent/a").is_held());
    }
}
