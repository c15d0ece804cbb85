//! What every call of the adapter's runs in: a panic ends there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use graphpatch_session as session;

/// Runs `body`. If it panics, disables the library and returns `fallback`.
pub(super) fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic".into());
        session::disable(&why);
        fallback
    })
}
