//! The scope that a thread is in: the attribute `frame` of `_thread.py`'s `Thread`, where calls of modules reach it without
//! asking Python.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr::null_mut;

use super::object::{Object, Result, none};
use super::raw::{self, PyObject};
use super::record::new_type;

thread_local! {
    /// An owned reference, or NULL for None.
    static FRAME: Cell<*mut PyObject> = const { Cell::new(null_mut()) };
    /// Whether this thread runs code that `torch.compile` has made.
    static COMPILED: Cell<bool> = const { Cell::new(false) };
    /// Whether `Thread.settle` of `_thread.py` has something to do on this thread.
    static SETTLING: Cell<bool> = const { Cell::new(false) };
}

/// The scope that this thread is in; `None` outside of runs.
pub fn frame() -> Option<Object> {
    let held = FRAME.get();
    // SAFETY: the reference is owned by this thread, and is cloned before any code runs.
    unsafe { Object::borrowed(&held) }.cloned()
}

pub fn set_frame(frame: Option<Object>) {
    let new = frame.map_or(null_mut(), Object::give);
    let old = FRAME.replace(new);
    // SAFETY: what was set here, and is not any more.
    drop(unsafe { Object::made(old) });
}

pub fn is_in_compiled() -> bool {
    COMPILED.get()
}

/// `in_compiled(on)`.
pub fn in_compiled(given: &Object) -> Result<()> {
    COMPILED.set(given.element(0)?.is_true()?);
    Ok(())
}

pub fn is_settling() -> bool {
    SETTLING.get()
}

/// `settling(on)`.
pub fn settling(given: &Object) -> Result<()> {
    SETTLING.set(given.element(0)?.is_true()?);
    Ok(())
}

/// Both of these at once.
pub fn set_flags(in_compiled: bool, settling: bool) {
    COMPILED.set(in_compiled);
    SETTLING.set(settling);
}

/// Type of the descriptor by which Python reads and sets it.
pub fn make_type() -> Result<Object> {
    let slots = [
        (raw::TP_DESCR_GET, get as *mut c_void),
        (raw::TP_DESCR_SET, set as *mut c_void),
    ];
    new_type(
        c"libgraphpatch._native.ThreadFrame",
        size_of::<PyObject>(),
        raw::FLAG_DEFAULT,
        &slots,
    )
}

unsafe extern "C" fn get(_: *mut PyObject, _: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    frame().unwrap_or_else(none).give()
}

unsafe extern "C" fn set(_: *mut PyObject, _: *mut PyObject, value: *mut PyObject) -> c_int {
    // SAFETY: Python holds the value during the call; NULL, where it is deleted, leaves None.
    let value = unsafe { Object::borrowed(&value) };
    set_frame(value.filter(|value| !value.is_none()).cloned());
    0
}
