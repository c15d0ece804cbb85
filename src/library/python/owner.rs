//! The owner of an object of the library's, as Python holds it: `owner(free, address)`.
//!
//! It frees the object when nobody holds it any more. A class of Python's with a `__del__` cannot do this without being seen:
//! an exception that a signal handler raises inside of it is printed, and is lost to the program.

use std::ffi::c_void;
use std::mem::size_of;

use super::object::{Object, Result};
use super::raw::{self, PyObject, python};
use super::record::{free, new_type};

type Free = unsafe extern "C" fn(*mut c_void);

#[repr(C)]
struct Owner {
    base: PyObject,
    /// The function of the C ABI that frees the object. Zero: there is none.
    free: u64,
    address: u64,
}

/// The type of these owners.
pub fn make_type() -> Result<Object> {
    new_type(
        c"libgraphpatch._native.Owner",
        size_of::<Owner>(),
        raw::FLAG_DEFAULT,
        &[(raw::TP_DEALLOC, deallocate as *mut c_void)],
    )
}

/// `owner(type, free, address)`: `free` is the address of a call of the C ABI that takes one pointer.
pub fn make(given: &Object) -> Result<Object> {
    let (kind, release) = (given.element(0)?, given.element(1)?.unsigned()?);
    let address = given.element(2)?.unsigned()?;
    // SAFETY: the package passes the type above; the allocation is cleared.
    let made = unsafe { Object::made(python().PyType_GenericAlloc(kind.address(), 0)) }?;
    // SAFETY: nobody else has seen it, and it is of this type.
    let owner = unsafe { &mut *made.address().cast::<Owner>() };
    (owner.free, owner.address) = (release, address);
    Ok(made)
}

unsafe extern "C" fn deallocate(object: *mut PyObject) {
    // SAFETY: Python calls it with an owner that nobody holds.
    let (release, address) = unsafe {
        let owner = &*object.cast::<Owner>();
        (owner.free, owner.address)
    };
    if release != 0 {
        // SAFETY: the package passed the address of such a function, and of an object of its kind that is freed only here.
        // The GIL is not held meanwhile, since freeing may wait for another thread.
        unsafe {
            let release: Free = std::mem::transmute(release as usize);
            let thread = python().PyEval_SaveThread();
            release(std::ptr::with_exposed_provenance_mut(address as usize));
            python().PyEval_RestoreThread(thread);
        }
    }
    // SAFETY: it holds nothing, and nobody uses it any more.
    unsafe { free(object) };
}
