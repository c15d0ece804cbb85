//! What a preloaded process knows of the reports that it has written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::seal::Seal;
use super::values::Values;

/// What was written, and when.
pub(super) struct Reports {
    opened: Instant,
    /// The same moment, in nanoseconds since 1970.
    pub(super) started: u128,
    /// A report is being written.
    pub(super) writing: AtomicBool,
    /// The graph has grown since the last report.
    pub(super) grown: AtomicBool,
    pub(super) values: Values,
    pub(super) seal: Seal,
    /// When the last report was done and how long it took, in microseconds since `opened`; 0: none yet.
    pub(super) written: AtomicU64,
    pub(super) took: AtomicU64,
}

impl Reports {
    /// None is written yet; the process begins now.
    pub(super) fn begin() -> Reports {
        Reports {
            opened: Instant::now(),
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos()),
            writing: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            values: Values::default(),
            seal: Seal::begin(),
            written: AtomicU64::new(0),
            took: AtomicU64::new(0),
        }
    }

    /// Called in a forked child: a thread of the parent that was writing a report does not exist here.
    pub(super) fn forget(&self) {
        self.writing.store(false, Ordering::Release);
        self.written.store(0, Ordering::Relaxed);
        self.grown.store(false, Ordering::Relaxed);
        self.values.forget();
        self.seal.forget();
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}
