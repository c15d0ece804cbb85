//! The call that is to be made in the process, and how long it took.

use std::path::Path;
use std::time::Duration;

/// The call that is to be made in the process.
pub struct Call<'a> {
    /// The library, by a path at which the process sees the same file.
    pub library: &'a Path,
    /// The function in it. It takes one text, copies it, and returns soon.
    pub entry: &'a str,
    /// Its result when it has succeeded.
    pub done: u64,
    /// The text.
    pub request: &'a str,
    /// How long a thread is looked for, and how long one call may take.
    pub limit: Duration,
}

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// How long no thread was found that could be borrowed.
    pub searched: Duration,
    /// How long the borrowed thread was kept from its own work.
    pub stalled: Duration,
}
