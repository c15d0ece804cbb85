//! Values that probes and records keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use graphpatch_locks::Mutex;
use once_cell::sync::OnceCell;

use crate::error::Result;
use crate::tensor::{Dtype, HostTensor};

/// A copy in the memory of a device, held by whoever made it.
pub trait Remote: Send + Sync + std::fmt::Debug {
    /// Its elements in row-major order; waits until they are there.
    ///
    /// # Errors
    ///
    /// What the device says.
    fn read(&self, bytes: &mut [u8]) -> Result<()>;
    /// Address of a new DLPack tensor that shares it.
    fn lend(&self) -> Option<usize>;
}

/// A value that is read back when somebody asks for it, and only then.
#[derive(Debug)]
pub struct OnDevice {
    dtype: Dtype,
    sizes: Vec<i64>,
    remote: Mutex<Option<Box<dyn Remote>>>,
    host: OnceCell<Arc<HostTensor>>,
}

impl OnDevice {
    pub fn new(dtype: Dtype, sizes: Vec<i64>, remote: Box<dyn Remote>) -> OnDevice {
        OnDevice {
            dtype,
            sizes,
            remote: Mutex::new(Some(remote)),
            host: OnceCell::new(),
        }
    }

    /// The value in host memory; the device's copy goes, unless it is to `stay`: then it is read anew each time, since a
    /// replayed graph may have written it.
    fn read(&self, stay: bool) -> Result<Arc<HostTensor>> {
        let fetch = || {
            let mut tensor = HostTensor::zeros(self.dtype, &self.sizes)?;
            if let Some(remote) = &*self.remote.lock() {
                remote.read(tensor.bytes_mut())?;
            }
            Ok(Arc::new(tensor))
        };
        if stay {
            return fetch();
        }
        let host = self.host.get_or_try_init(fetch)?;
        *self.remote.lock() = None;
        Ok(host.clone())
    }

    /// See [`Remote::lend`].
    pub fn lend(&self) -> Option<usize> {
        self.remote.lock().as_ref()?.lend()
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
    /// `None`: only the last one is kept.
    all: bool,
    limit: Option<u64>,
    /// What is copied on a device stays there after it was read, and is handed out as it is.
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

    /// One of the same kind that has kept nothing.
    pub fn fresh(&self) -> Kept {
        Kept {
            all: self.all,
            limit: self.limit,
            on_device: self.on_device,
            ..Kept::last()
        }
    }

    /// One of the same kind whose copies stay on the device, or do not.
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
            return;
        }
        let before = match self.all {
            true => Vec::new(),
            false => std::mem::take(&mut *values),
        };
        values.push(value);
        // What lies on a device is let go of when no lock is held.
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

    /// The DLPack tensor of value number `index`, if it is to stay on its device.
    pub fn lend(&self, index: usize) -> Option<usize> {
        match self.values.lock().get(index).cloned()? {
            Copied::Device(value) if self.on_device => value.lend(),
            _ => None,
        }
    }

    /// How many values came after the limit was reached.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn clear(&self) {
        let before = std::mem::take(&mut *self.values.lock());
        drop(before);
        self.dropped.store(0, Ordering::Relaxed);
    }
}
