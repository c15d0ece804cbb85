//! The values that probes and records of one process have kept, in a safetensors file beside its report. Like the report,
//! the file is replaced as a whole. Unlike the report it may be large. So writing it has a limit of its own in time, and the
//! file is not written again while no value was added.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use graphpatch_locks::Mutex;

use graphpatch_core::error::Result;
use graphpatch_core::tensor::{HostTensor, safetensors};
use graphpatch_session::Keyed;

/// Writing takes at most one part in so many of the time, except at the end of the process.
const SHARE: u32 = 200;

/// What was written last, and when.
#[derive(Debug, Default)]
struct Written {
    // A weak pointer keeps its address from being used again, so that equal addresses mean equal values.
    values: Vec<Weak<HostTensor>>,
    at: Option<Instant>,
    took: Duration,
}

/// The writer of one process.
#[derive(Debug, Default)]
pub struct Values {
    written: Mutex<Written>,
}

impl Values {
    /// Replaces `file` if there is something new and it is time, or the `last` time. One thread at a time calls this.
    ///
    /// # Errors
    ///
    /// [`graphpatch_core::error::Error::File`] when the file cannot be written.
    pub fn write(&self, kept: &Keyed, file: &Path, last: bool) -> Result<()> {
        // The lock is held for a moment only: another thread may fork while this one writes.
        let before = self
            .written
            .try_lock()
            .map(|mut written| std::mem::take(&mut *written));
        let before = before.unwrap_or_default();
        if before.is(&kept.tensors) || !(last || before.is_past()) {
            self.put(before);
            return Ok(());
        }
        let begin = Instant::now();
        let result = safetensors::save(file, &kept.tensors);
        let values = kept.tensors.iter().map(|(_, value)| Arc::downgrade(value));
        self.put(Written {
            values: if result.is_ok() {
                values.collect()
            } else {
                before.values
            },
            at: Some(Instant::now()),
            took: begin.elapsed(),
        });
        result
    }

    /// Called in a forked child, which has written nothing yet. The list of the parent's values is leaked on purpose: to drop a
    /// weak pointer writes to its value's memory, so the kernel would have to copy that page.
    pub fn forget(&self) {
        if let Some(mut place) = self.written.try_lock() {
            std::mem::forget(std::mem::take(&mut *place));
        }
    }

    fn put(&self, written: Written) {
        if let Some(mut place) = self.written.try_lock() {
            *place = written;
        }
    }
}

impl Written {
    fn is(&self, tensors: &[(String, Arc<HostTensor>)]) -> bool {
        let same = |(old, (_, new)): (&Weak<HostTensor>, &(String, Arc<HostTensor>))| {
            std::ptr::eq(old.as_ptr(), Arc::as_ptr(new))
        };
        self.values.len() == tensors.len() && self.values.iter().zip(tensors).all(same)
    }

    fn is_past(&self) -> bool {
        self.at
            .is_none_or(|at| at.elapsed() >= self.took.saturating_mul(SHARE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::tensor::Dtype;
    use graphpatch_session::{KeptValues, keyed};

    fn tensor(dtype: Dtype) -> Arc<HostTensor> {
        Arc::new(HostTensor::zeros(dtype, &[2]).expect("tensor"))
    }

    fn kept(path: &str, record: bool, values: usize) -> KeptValues {
        KeptValues {
            id: 1,
            path: path.into(),
            record,
            values: (0..values).map(|_| tensor(Dtype::F32)).collect(),
            dropped: 0,
        }
    }

    #[test]
    fn keys() {
        let keys = |kept: &[KeptValues]| -> Vec<String> {
            keyed(kept)
                .tensors
                .into_iter()
                .map(|(key, _)| key)
                .collect()
        };
        let all = [
            kept("a", false, 1),
            kept("a", true, 2),
            kept("b", false, 0),
            kept("a", false, 1),
            kept("a", true, 1),
            kept("a#1", false, 1),
        ];
        assert_eq!(keys(&all), ["a", "a#0", "a#1", "a~2", "a~2#0", "a#1~"]);
        let mut wide = kept("c", true, 1);
        wide.values.push(tensor(Dtype::C128));
        let keyed = keyed(&[wide]);
        assert_eq!(keyed.tensors.len(), 1);
        assert_eq!(keyed.unsaved, ["c#1: safetensors cannot hold complex128"]);
    }

    #[test]
    fn only_what_is_new_is_written() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("values.safetensors");
        let values = Values::default();
        values.write(&Keyed::default(), &file, true).expect("write");
        assert!(!file.exists(), "nothing was kept");
        let mut one = kept("a", true, 1);
        values
            .write(&keyed(std::slice::from_ref(&one)), &file, false)
            .expect("write");
        assert!(file.exists());
        std::fs::remove_file(&file).expect("remove");
        values
            .write(&keyed(std::slice::from_ref(&one)), &file, true)
            .expect("write");
        assert!(!file.exists(), "the same values");
        one.values.push(tensor(Dtype::F32));
        values.written.lock().took = Duration::from_secs(60);
        values
            .write(&keyed(std::slice::from_ref(&one)), &file, false)
            .expect("write");
        assert!(!file.exists(), "too soon");
        values
            .write(&keyed(std::slice::from_ref(&one)), &file, true)
            .expect("write");
        assert_eq!(safetensors::read_all(&file).expect("read").len(), 2);
        std::fs::remove_file(&file).expect("remove");
        values.forget();
        values.write(&keyed(&[one]), &file, false).expect("write");
        assert!(file.exists());
        assert!(
            values
                .write(
                    &keyed(&[kept("b", false, 1)]),
                    Path::new("/nonexistent/x"),
                    true
                )
                .is_err()
        );
    }
}
