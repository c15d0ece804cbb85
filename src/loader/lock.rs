//! The lock that lets one of several processes build an adapter.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::say;

/// Held until dropped; the kernel frees it when its process dies. It saves work and is not needed for a right result:
/// the finished file appears by a rename, so where there is no locking (some network file systems) several processes
/// build the same file.
pub struct Lock(Option<File>);

impl Lock {
    /// Waits for whoever builds `name` in `dir`, but not for ever: a builder may have been stopped.
    pub fn wait(dir: &Path, name: &str) -> Lock {
        Lock::wait_at_most(dir, name, Duration::from_secs(300))
    }

    fn wait_at_most(dir: &Path, name: &str, limit: Duration) -> Lock {
        let path = dir.join(format!("{name}.lock"));
        let new = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        // Another user's (root's, after a sudo) can be read, which is enough to lock it.
        let Ok(file) = File::open(&path).or_else(|_| new()) else {
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

    /// Whether nobody else holds it.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("dir");
        let soon = Duration::from_millis(50);
        let first = Lock::wait(dir.path(), "a");
        assert!(first.is_held() && Lock::wait(dir.path(), "b").is_held());
        assert!(!Lock::wait_at_most(dir.path(), "a", soon).is_held());
        let path = dir.path();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::wait(path, "a").is_held());
            std::thread::sleep(soon);
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().expect("thread"));
        });
        assert!(!Lock::wait(&path.join("absent"), "a").is_held());
    }
}
