//! Runs and scopes that a program marks by calls of its own, by way of the adapter.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::attach::adapter;
use super::seam_generated as raw;
use crate::error::{Error, Result};
use crate::session::{Root, Scope};

/// Roots and scopes by name; they are few and live as long as the process.
static ROOTS: LazyLock<Mutex<FxHashMap<String, Arc<Root>>>> = LazyLock::new(Default::default);
static SCOPES: LazyLock<Mutex<FxHashMap<String, Arc<Scope>>>> = LazyLock::new(Default::default);

fn known<T>(
    table: &Mutex<FxHashMap<String, Arc<T>>>,
    name: &str,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let mut table = table.lock();
    match table.get(name) {
        Some(found) => found.clone(),
        None => {
            let made = Arc::new(make());
            table.insert(name.to_owned(), made.clone());
            made
        }
    }
}

/// The adapter's answer: empty text is success.
fn checked(answer: raw::GpStr) -> Result<()> {
    if answer.size == 0 || answer.data.is_null() {
        return Ok(());
    }
    // SAFETY: the adapter's text stays until its next call on this thread.
    let text = unsafe { std::slice::from_raw_parts(answer.data.cast::<u8>(), answer.size) };
    Err(Error::State(String::from_utf8_lossy(text).into_owned()))
}

/// Begins a run of the root `name` on this thread.
pub fn run_begin(name: &str) -> Result<()> {
    let begin = adapter()?.run_begin;
    let root = known(&ROOTS, name, || {
        Root::new(
            Arc::new(Scope::new("", "", name, Vec::new())),
            name,
            Vec::new(),
        )
    });
    // SAFETY: the table's call; the root stays in ROOTS.
    begin.map_or(Ok(()), |begin| {
        checked(unsafe { begin(Arc::as_ptr(&root).cast_mut().cast()) })
    })
}

/// Ends this thread's run.
pub fn run_end() -> Result<()> {
    // SAFETY: the table's call.
    adapter()?
        .run_end
        .map_or(Ok(()), |end| checked(unsafe { end() }))
}

/// Enters a scope by its module's attribute path.
pub fn scope_enter(path: &str) -> Result<()> {
    let enter = adapter()?.scope_enter;
    let scope = known(&SCOPES, path, || Scope::new(path, path, "", Vec::new()));
    // SAFETY: the table's call; the scope stays in SCOPES.
    enter.map_or(Ok(()), |enter| {
        checked(unsafe { enter(Arc::as_ptr(&scope).cast_mut().cast()) })
    })
}

/// Leaves the innermost scope.
pub fn scope_leave() -> Result<()> {
    // SAFETY: the table's call.
    adapter()?
        .scope_leave
        .map_or(Ok(()), |leave| checked(unsafe { leave() }))
}
