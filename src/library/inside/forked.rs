//! A forked child of an attached process: the same options and patches, everything counted from zero, a report of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::process;

/// Called in a forked child whose locks are all free.
pub fn begin_anew() {
    let Some(process) = process::get() else {
        return;
    };
    process.pid.store(std::process::id(), Ordering::Relaxed);
    process.forked.store(true, Ordering::Relaxed);
    process.reports.forget();
    if let Some(session) = process.session.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            session.reset_after_fork();
            graphpatch_torch::flat_forked();
        }));
    }
}

/// Called in a forked child whose locks may not be free. None of our code runs there any more, and it writes no report.
pub fn give_up() {
    process::give_up();
}
