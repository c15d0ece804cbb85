//! The two ends of a block of patches: `__enter__` and `__exit__` of the package's `PatchBlock`.
//!
//! Python runs signal handlers between the instructions of its own functions, and what they raise may come at any of them: an
//! `__exit__` that is written in Python may end at its first instruction. Here patches are registered as the last thing that
//! entering does, and switched off as the first that leaving does, with no instruction of Python's between that and the block.

use super::object::{Object, Result, boolean, interned, tuple};
use crate::ffi::register::{disable_all, gp_patch_register_all};
use crate::ffi::session::gp_session;
use crate::ffi::status::Status;

/// `enter(block)`, as a method. `block._prepare()` does what can be done before; `block._last()`, under the lock `block._lock`,
/// answers what is to be registered, as addresses and numbers: `(session, specs, count, numbers, holds)`; `block._failed(status)`
/// undoes it and raises. Answers the block.
pub fn enter(given: &Object) -> Result<Object> {
    let block = given.element(0)?;
    let named = |name| block.attribute(&interned(name)?);
    named(c"_prepare")?.call_bare()?;
    let (lock, last, failed) = (named(c"_lock")?, named(c"_last")?, named(c"_failed")?);
    let (acquire, release) = (interned(c"acquire")?, interned(c"release")?);
    let release = lock.attribute(&release)?;
    // The Python lock is acquired and released by calls from here, so that no signal handler of Python's can run right after.
    drop(lock.attribute(&acquire)?.call_bare()?);
    let result = register(&last);
    match result {
        Ok(_) => drop(release.call_bare()?),
        Err(_) => super::object::saved(|| drop(release.call_bare())),
    }
    match result? {
        Status::Ok => Ok(block),
        status => {
            let status = super::object::number(status as u64)?;
            failed.call(&tuple([&status].into_iter())?, None)
        }
    }
}

fn register(last: &Object) -> Result<Status> {
    let prepared = last.call_bare()?;
    let number = |index| prepared.element(index)?.unsigned();
    let (session, specs, count, numbers) = (number(0)?, number(1)?, number(2)?, number(3)?);
    // SAFETY: addresses of objects that the package holds: a session, `count` specs, and as many places for numbers.
    let status = unsafe {
        gp_patch_register_all(
            std::ptr::with_exposed_provenance(session as usize),
            std::ptr::with_exposed_provenance(specs as usize),
            count as usize,
            std::ptr::with_exposed_provenance_mut(numbers as usize),
        )
    };
    hold(&prepared.element(4)?, status == Status::Ok)?;
    Ok(status)
}

/// Notes in `holds.now` whether the patches are registered, so that the package can undo them after an exception.
fn hold(holds: &Object, now: bool) -> Result<()> {
    holds.set_value(&interned(c"now")?, &boolean(now))
}

/// `leave(block, kind, error, traceback)`, as a method: switches the patches of the last of the list `block._open` off, then calls
/// `block._left(kind, error, traceback)` and answers what that does.
pub fn leave(given: &Object) -> Result<Object> {
    let block = given.element(0)?;
    let open = block.attribute(&interned(c"_open")?)?;
    if let Some(last) = open.list_length()?.checked_sub(1) {
        let live = open.list_element(last)?.attribute(&interned(c"live")?)?;
        let number = |index| live.element(index)?.unsigned();
        let (session, numbers, count) = (number(0)?, number(1)?, number(2)?);
        // SAFETY: as above; the numbers were filled when the patches were registered.
        unsafe {
            let ids: *const u64 = std::ptr::with_exposed_provenance(numbers as usize);
            let ids = std::slice::from_raw_parts(ids, count as usize);
            let session: *const gp_session = std::ptr::with_exposed_provenance(session as usize);
            disable_all(session, ids);
        }
        hold(&live.element(3)?, false)?;
    }
    // A user who calls `__exit__` directly may leave the arguments out.
    let told = |index| match index < given.tuple_length()? {
        true => given.element(index),
        false => Ok(super::object::none()),
    };
    let ended = [told(1)?, told(2)?, told(3)?];
    block
        .attribute(&interned(c"_left")?)?
        .call(&tuple(ended.iter())?, None)
}
