//! A program may limit its own system calls by a filter (seccomp), which may end the program at a call of ours.

/// Whether a filter was there when this value was made. Such a one is known to let us open files.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// A filter was there from the start, as in most containers. Another one cannot be told from it.
    pub began: bool,
}

impl Filter {
    pub fn begin() -> Filter {
        Filter {
            began: is_filtered(),
        }
    }

    /// Whether this thread has a filter of the program's own: no file may be opened on it, and no thread started.
    pub fn is_closed(self) -> bool {
        !self.began && is_filtered()
    }
}

/// Whether this thread runs under a filter.
fn is_filtered() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) > 0 }
}
