//! A filter of a program's own (see [`crate::filter`]) may end the program at the first system
//! call that writes a report. So under a new filter nothing is written. A page of memory that is shared with the command
//! says so, since writing to it takes no system call.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use crate::filter::Filter;
use graphpatch_protocol::seal::{CHILD, OWN, SIZE};

/// What is known of the filters of this process.
pub(super) struct Seal {
    filter: Filter,
    /// The shared page, of [`SIZE`] bytes; null: none yet.
    page: AtomicPtr<u8>,
    /// The page is the parent's: this is a forked child that has no page of its own yet.
    inherited: AtomicBool,
}

impl Seal {
    pub(super) fn begin() -> Seal {
        Seal {
            filter: Filter::begin(),
            page: AtomicPtr::new(std::ptr::null_mut()),
            inherited: AtomicBool::new(false),
        }
    }

    /// Called in a forked child: the page is its parent's from now on.
    pub(super) fn forget(&self) {
        self.inherited.store(true, Ordering::Relaxed);
    }

    /// Whether this thread must write no files. If so, the page tells the command.
    pub(super) fn is_closed(&self) -> bool {
        let closed = self.filter.is_closed();
        if closed {
            self.mark(true);
        }
        closed
    }

    /// A report was written: nothing of this process is missing any more.
    pub(super) fn reported(&self) {
        if !self.inherited.load(Ordering::Relaxed) {
            self.mark(false);
        }
    }

    fn mark(&self, missing: bool) {
        let page = self.page.load(Ordering::Acquire);
        let inherited = self.inherited.load(Ordering::Relaxed);
        if !page.is_null() {
            // SAFETY: a mapping of SIZE bytes that is never taken away, written by atomic stores alone.
            let place =
                unsafe { AtomicU8::from_ptr(page.add(if inherited { CHILD } else { OWN })) };
            place.store(u8::from(missing), Ordering::Relaxed);
        }
    }

    /// Makes the page, in a new file. If that fails, the command cannot be told. Called by one thread at a time.
    pub(super) fn prepare(&self, file: &Path) {
        let none = self.page.load(Ordering::Relaxed).is_null();
        if self.filter.began || !(none || self.inherited.load(Ordering::Relaxed)) {
            return;
        }
        let Some(page) = shared(file) else { return };
        self.page.store(page, Ordering::Release);
        self.inherited.store(false, Ordering::Relaxed);
    }
}

/// Makes the file and maps its content.
fn shared(file: &Path) -> Option<*mut u8> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(file)
        .ok()?;
    // The bytes are written, not only reserved: a full disk is then an error here, and not a SIGBUS later.
    file.write_all(&[0; SIZE]).ok()?;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    (page != libc::MAP_FAILED).then_some(page.cast())
}
