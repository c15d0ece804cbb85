//! Callbacks that C code calls: an exception that a signal handler raises in one of them is raised again in the program.
//!
//! Python runs signal handlers between the instructions of its own functions, so also in a callback of ours. What is raised there
//! can go no further: `ctypes` prints it, and a Ctrl-C or a deadline is lost to the program, which then may never end.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use super::object::{Object, Raised, Result, none, tuple};
use super::raw::{PyObject, python};

/// `sheltered(function, ...)`: calls the function with the other arguments. What it raises comes up on this thread as soon as it
/// runs instructions of Python's again. Answers None.
pub fn sheltered(given: &Object) -> Result<Object> {
    let arguments: Result<Vec<Object>> = (1..given.tuple_length()?)
        .map(|index| given.element(index))
        .collect();
    let arguments = tuple(arguments?.iter())?;
    match given.element(0)?.call(&arguments, None) {
        Ok(_) => Ok(none()),
        Err(Raised) => raise_later().map(|()| none()),
    }
}

fn raise_later() -> Result<()> {
    let (mut kind, mut value, mut traceback): (*mut PyObject, *mut PyObject, *mut PyObject) =
        (null_mut(), null_mut(), null_mut());
    // SAFETY: takes this thread's exception, as an object with its traceback.
    unsafe {
        python().PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
        python().PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut traceback);
        if !traceback.is_null() {
            python().PyException_SetTraceback(value, traceback);
        }
    }
    let later = if is_main_thread() {
        // SAFETY: the call below takes this reference.
        unsafe {
            python().Py_IncRef(value);
            python().Py_AddPendingCall(raise, value.cast()) == 0
        }
    } else {
        // Only the main thread makes such calls. On another one, an exception of this class comes up.
        // SAFETY: this thread, and a class of exceptions.
        unsafe {
            python().PyThreadState_SetAsyncExc(python().PyThread_get_thread_ident(), kind) == 1
        }
    };
    if !later {
        // SAFETY: gives back what was taken.
        unsafe { python().PyErr_Restore(kind, value, traceback) };
        return Err(Raised);
    }
    for held in [kind, value, traceback] {
        // SAFETY: what was taken, and is not used any more.
        drop(unsafe { Object::made(held) });
    }
    Ok(())
}

/// Signal handlers of Python's run on its main thread only, which is the process's own as a rule.
fn is_main_thread() -> bool {
    // SAFETY: both ask for numbers.
    unsafe { libc::gettid() == libc::getpid() }
}

/// Raises an exception whose reference it takes. Python calls it between two instructions.
unsafe extern "C" fn raise(error: *mut c_void) -> c_int {
    // SAFETY: the reference that was kept for it.
    if let Ok(error) = unsafe { Object::made(error.cast()) } {
        // SAFETY: an exception, of its own class.
        unsafe { python().PyErr_SetObject(error.kind(), error.address()) };
    }
    -1
}
