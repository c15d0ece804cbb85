//! Callbacks that C code calls: an exception that a signal handler raises in one of them is raised again in the program.
//!
//! Python runs signal handlers between the instructions of its own functions, so also in a callback of ours. What is raised there
//! can go no further: `ctypes` prints it, as Python does in callbacks of weak references and around a fork, and a Ctrl-C or a
//! deadline is lost to the program, which then may never end.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use super::object::{Object, Raised, Result, none, tuple};
use super::raw::{PyObject, python};

/// So often is a function called at most by [`persisted`].
const TRIES: usize = 10;

/// `sheltered(function, ...)`: calls the function with the other arguments. What it raises comes up on this thread as soon as it
/// runs instructions of Python's again. Answers None.
pub fn sheltered(given: &Object) -> Result<Object> {
    let (function, arguments) = split(given)?;
    match function.call(&arguments, None) {
        Ok(_) => Ok(none()),
        Err(Raised) => raise_later(take()).map(|()| none()),
    }
}

/// `persisted(function, ...)`: the same for a function that has to come to its end. If it raises, it is called again, so it must be
/// one that may be called again. What it raised comes up when it has ended. Where no call ends, the fault is its own: the last
/// exception is raised here, which Python prints.
pub fn persisted(given: &Object) -> Result<Object> {
    let (function, arguments) = split(given)?;
    let mut raised = Vec::new();
    while function.call(&arguments, None).is_err() {
        let error = take();
        if raised.len() + 1 == TRIES {
            raised.into_iter().for_each(let_go);
            // SAFETY: gives back what was taken.
            unsafe { python().PyErr_Restore(error.0, error.1, null_mut()) };
            return Err(Raised);
        }
        raised.push(error);
    }
    // Only now, since the next instruction of Python's would raise it.
    for error in raised {
        raise_later(error)?;
    }
    Ok(none())
}

fn split(given: &Object) -> Result<(Object, Object)> {
    let arguments: Result<Vec<Object>> = (1..given.tuple_length()?)
        .map(|index| given.element(index))
        .collect();
    Ok((given.element(0)?, tuple(arguments?.iter())?))
}

/// The class of an exception, and the exception itself with its traceback. References to both are the holder's.
type Taken = (*mut PyObject, *mut PyObject);

/// Takes this thread's exception.
fn take() -> Taken {
    let (mut kind, mut value, mut traceback): (*mut PyObject, *mut PyObject, *mut PyObject) =
        (null_mut(), null_mut(), null_mut());
    // SAFETY: a call has failed, so this thread has an exception.
    unsafe {
        python().PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
        python().PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut traceback);
        if !traceback.is_null() {
            python().PyException_SetTraceback(value, traceback);
            drop(Object::made(traceback));
        }
    }
    (kind, value)
}

fn raise_later((kind, value): Taken) -> Result<()> {
    let later = if is_main_thread() {
        let raising = Box::into_raw(Box::new(Raising {
            // SAFETY: asks for a number.
            process: unsafe { libc::getpid() },
            error: value,
        }));
        // SAFETY: the call below takes this reference and frees the allocation.
        unsafe {
            python().Py_IncRef(value);
            let added = python().Py_AddPendingCall(raise, raising.cast()) == 0;
            if !added {
                drop(Object::made(value));
                drop(Box::from_raw(raising));
            }
            added
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
        unsafe { python().PyErr_Restore(kind, value, null_mut()) };
        return Err(Raised);
    }
    let_go((kind, value));
    Ok(())
}

fn let_go((kind, value): Taken) {
    for held in [kind, value] {
        // SAFETY: what was taken, and is not used any more.
        drop(unsafe { Object::made(held) });
    }
}

/// Signal handlers of Python's run on its main thread only, which is the process's own as a rule.
fn is_main_thread() -> bool {
    // SAFETY: both ask for numbers.
    unsafe { libc::gettid() == libc::getpid() }
}

/// An exception that is to come up in the process that was interrupted by it, and not in a child that it forks meanwhile.
struct Raising {
    process: libc::pid_t,
    error: *mut PyObject,
}

/// Raises an exception. Python calls it between two instructions.
unsafe extern "C" fn raise(raising: *mut c_void) -> c_int {
    // SAFETY: the allocation and the reference that were kept for it; asks for a number.
    let (raising, here) = unsafe { (Box::from_raw(raising.cast::<Raising>()), libc::getpid()) };
    // SAFETY: as above.
    let Ok(error) = (unsafe { Object::made(raising.error) }) else {
        return 0;
    };
    if raising.process != here {
        return 0;
    }
    // SAFETY: an exception, of its own class.
    unsafe { python().PyErr_SetObject(error.kind(), error.address()) };
    -1
}
