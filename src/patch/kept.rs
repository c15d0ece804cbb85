//! Values that probes and records keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::tensor::HostTensor;

/// Copies of the values of one node.
#[derive(Debug)]
pub struct Kept {
    /// `None`: only the last one is kept.
    all: bool,
    limit: Option<u64>,
    values: Mutex<Vec<Arc<HostTensor>>>,
    dropped: AtomicU64,
}

impl Kept {
    /// A probe: the last value.
    pub fn last() -> Kept {
        Kept {
            all: false,
            limit: None,
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
            ..Kept::last()
        }
    }

    pub fn keeps_all(&self) -> bool {
        self.all
    }

    fn is_full(&self, values: &[Arc<HostTensor>]) -> bool {
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
        let mut values = self.values.lock();
        if self.is_full(&values) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.all {
            values.clear();
        }
        values.push(Arc::new(value));
    }

    /// What is kept so far, oldest first.
    pub fn values(&self) -> Vec<Arc<HostTensor>> {
        self.values.lock().clone()
    }

    /// How many values came after the limit was reached.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn clear(&self) {
        self.values.lock().clear();
        self.dropped.store(0, Ordering::Relaxed);
    }
}
