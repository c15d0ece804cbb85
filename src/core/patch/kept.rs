//! Values that probes and records keep.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use graphpatch_locks::Mutex;
use once_cell::sync::OnceCell;

use crate::error::Result;
use crate::tensor::{Dtype, HostTensor};

/// A copy in the memory of a device; only the crate that made it can look into it.
///
/// Dropping it may run code of the user's. So it is never dropped while a lock of ours is held.
pub trait Remote: Any + Send + Sync + fmt::Debug {
    /// Its elements in row-major order; waits until they are there.
    ///
    /// # Errors
    ///
    /// What the device says.
    fn read(&self, bytes: &mut [u8]) -> Result<()>;
}

/// A value that is read back when somebody asks for it, and only then.
#[derive(Debug)]
pub struct OnDevice {
    dtype: Dtype,
    sizes: Vec<i64>,
    remote: Mutex<Option<Arc<dyn Remote>>>,
    host: OnceCell<Arc<HostTensor>>,
}

impl OnDevice {
    pub fn new(dtype: Dtype, sizes: Vec<i64>, remote: Arc<dyn Remote>) -> OnDevice {
        OnDevice {
            dtype,
            sizes,
            remote: Mutex::new(Some(remote)),
            host: OnceCell::new(),
        }
    }

    /// The value in host memory. The device's copy is then dropped, unless it is to `stay`: such a copy is read anew each time,
    /// since a replayed graph may have written it.
    fn read(&self, stay: bool) -> Result<Arc<HostTensor>> {
        let fetch = || {
            let mut tensor = HostTensor::zeros(self.dtype, &self.sizes)?;
            if let Some(remote) = self.remote() {
                remote.read(tensor.bytes_mut())?;
            }
            Ok(Arc::new(tensor))
        };
        if stay {
            return fetch();
        }
        let host = self.host.get_or_try_init(fetch)?;
        // The lock is free again before the copy is dropped.
        let gone = self.remote.lock().take();
        drop(gone);
        Ok(host.clone())
    }

    fn remote(&self) -> Option<Arc<dyn Remote>> {
        self.remote.lock().clone()
    }
}

/// One kept value.
#[derive(Clone, Debug)]
enum Copied {
    Host(Arc<HostTensor>),
    Device(Arc<OnDevice>),
}

/// Copies of the values of one node.
#[derive(Debug)]
pub struct Kept {
    /// Whether every value is kept, up to `limit`, or only the last one.
    all: bool,
    limit: Option<u64>,
    /// Whether copies on a device stay there after they were read, and are handed out as they are.
    on_device: bool,
    values: Mutex<Vec<Copied>>,
    dropped: AtomicU64,
}

impl Kept {
    /// A probe: the last value.
    pub fn last() -> Kept {
        Kept {
            all: false,
            limit: None,
            on_device: false,
            values: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// A record: every value, in order, up to a limit.
    pub fn all(limit: Option<u64>) -> Kept {
        Kept {
            all: true,
            limit,
            ..Kept::last()
        }
    }

    /// An empty `Kept` of the same kind.
    pub fn fresh(&self) -> Kept {
        Kept {
            all: self.all,
            limit: self.limit,
            on_device: self.on_device,
            ..Kept::last()
        }
    }

    /// An empty `Kept` of the same kind whose copies stay on the device, or do not.
    pub fn staying(&self, on_device: bool) -> Kept {
        Kept {
            on_device,
            ..self.fresh()
        }
    }

    pub fn keeps_all(&self) -> bool {
        self.all
    }

    fn is_full(&self, values: &[Copied]) -> bool {
        self.all && self.limit.is_some_and(|limit| values.len() as u64 >= limit)
    }

    /// Whether one more value would be kept; if not, it counts as dropped.
    pub fn wants(&self) -> bool {
        let full = self.is_full(&self.values.lock());
        self.dropped.fetch_add(full.into(), Ordering::Relaxed);
        !full
    }

    /// Keeps one more value, unless other threads have filled the limit meanwhile.
    pub fn push(&self, value: HostTensor) {
        self.push_copy(Copied::Host(Arc::new(value)));
    }

    /// The same for a copy on a device.
    pub fn push_on_device(&self, value: OnDevice) {
        self.push_copy(Copied::Device(Arc::new(value)));
    }

    fn push_copy(&self, value: Copied) {
        let mut values = self.values.lock();
        if self.is_full(&values) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            drop(values);
            drop(value);
            return;
        }
        let before = match self.all {
            true => Vec::new(),
            false => std::mem::take(&mut *values),
        };
        values.push(value);
        // What the last value replaces is dropped when the lock is free again.
        drop(values);
        drop(before);
    }

    /// What is kept so far, oldest first. What lies on a device is read back now.
    pub fn values(&self) -> Vec<Result<Arc<HostTensor>>> {
        let copies = self.values.lock().clone();
        copies.iter().map(|copy| self.read(copy)).collect()
    }

    fn read(&self, copy: &Copied) -> Result<Arc<HostTensor>> {
        match copy {
            Copied::Host(tensor) => Ok(tensor.clone()),
            Copied::Device(value) => value.read(self.on_device),
        }
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.values.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value number `index`, read back if it lies on a device; `None` if there are not so many.
    ///
    /// # Errors
    ///
    /// What the device says.
    pub fn value(&self, index: usize) -> Option<Result<Arc<HostTensor>>> {
        let copy = self.values.lock().get(index).cloned()?;
        Some(self.read(&copy))
    }

    /// Value number `index` where it lies on its device, if it is to stay there.
    pub fn remote(&self, index: usize) -> Option<Arc<dyn Remote>> {
        let copy = self.values.lock().get(index).cloned()?;
        match copy {
            Copied::Device(value) if self.on_device => value.remote(),
            _ => None,
        }
    }

    /// How many values came after the limit was reached.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// For a forked child: it starts without values, and with none counted as dropped. The parent's values are leaked in the
    /// child, because freeing them would copy every memory page that they lie in.
    pub fn forget(&self) {
        std::mem::forget(std::mem::take(&mut *self.values.lock()));
        self.dropped.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Weak;

    /// A copy that looks at its probe when it is dropped, as code of the user's may.
    #[derive(Debug)]
    struct Curious {
        probe: Weak<Kept>,
        seen: Arc<Mutex<Vec<usize>>>,
    }

    impl Remote for Curious {
        fn read(&self, bytes: &mut [u8]) -> Result<()> {
            bytes.fill(7);
            Ok(())
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            if let Some(probe) = self.probe.upgrade() {
                // A probe that dropped this copy under its lock would deadlock.
                assert!(!probe.values.is_locked());
                self.seen.lock().push(probe.len());
            }
        }
    }

    fn curious(probe: &Arc<Kept>, seen: &Arc<Mutex<Vec<usize>>>) -> OnDevice {
        let remote = Curious {
            probe: Arc::downgrade(probe),
            seen: seen.clone(),
        };
        OnDevice::new(Dtype::U8, vec![2], Arc::new(remote))
    }

    #[test]
    fn copies_end_when_no_lock_is_held() {
        let seen = Arc::default();
        let probe = Arc::new(Kept::last());
        probe.push_on_device(curious(&probe, &seen));
        probe.push_on_device(curious(&probe, &seen));
        assert_eq!(*seen.lock(), [1], "the second value replaces the first");
        assert_eq!(probe.value(0).unwrap().unwrap().bytes(), [7, 7]);
        assert_eq!(*seen.lock(), [1, 1], "read back, a copy is needed no more");
        probe.forget();
        let full = Arc::new(Kept::all(Some(0)));
        full.push_on_device(curious(&full, &seen));
        assert_eq!(*seen.lock(), [1, 1, 0]);
        assert_eq!(full.dropped(), 1);
    }

    #[test]
    fn what_stays_on_its_device_is_handed_out() {
        let seen = Arc::default();
        let probe = Arc::new(Kept::last().staying(true));
        probe.push_on_device(curious(&probe, &seen));
        assert_eq!(probe.value(0).unwrap().unwrap().bytes(), [7, 7]);
        assert!(probe.remote(0).is_some() && probe.remote(1).is_none());
        let moved = Arc::new(Kept::last());
        moved.push_on_device(curious(&moved, &seen));
        assert!(moved.remote(0).is_none());
    }
}
