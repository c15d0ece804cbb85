//! A call of a module outside of any run. If the module is a root, a function of the package begins the run, and another one
//! ends it. Neither is on the stack while the module runs, so Python's stack is no deeper than without the library.

use std::ptr::null_mut;

use super::call::Call;
use super::object::{Object, Raised, Result, none, tuple};
use super::raw::{PyObject, python};
use super::scope;
use super::state::State;
use super::thread;

/// The call.
pub fn call(state: &State, module: &Object, call: &Call<'_>) -> Result<Object> {
    let begun = state.begin.call(&tuple([module].into_iter())?, None)?;
    if begun.is_none() {
        return call.go(state, module);
    }
    if begun.tuple_length()? == 1 {
        let (root, frame) = (begun.element(0)?, none());
        let (args, kwargs) = (call.args()?, call.kwargs()?);
        let all = [&root, &frame, module, &args, &kwargs, call.original];
        return state.call_root.call(&tuple(all.into_iter())?, None);
    }
    let output = inside(state, module, &begun, call);
    match output {
        Ok(output) => {
            state.end.call(&tuple([&begun].into_iter())?, None)?;
            Ok(output)
        }
        Err(Raised) => Err(failed(state, &begun)),
    }
}

/// The call in the run that has begun: `(root, wants, signature, arguments, ...)`.
fn inside(state: &State, module: &Object, begun: &Object, call: &Call<'_>) -> Result<Object> {
    let wants = begun.element(1)?.unsigned()? as u32;
    let (signature, arguments) = (begun.element(2)?, begun.element(3)?);
    match thread::frame().filter(|frame| frame.kind() == state.frame.address()) {
        None => call.go(state, module),
        Some(frame) => {
            let about = (Some(&signature), Some(&arguments));
            scope::shown(state, &frame, module, about, wants, call)
        }
    }
}

/// Ends a run whose call has raised. The package may raise another exception instead: the one that caused the first.
fn failed(state: &State, begun: &Object) -> Raised {
    let (mut kind, mut value, mut traceback): (*mut PyObject, *mut PyObject, *mut PyObject) =
        (null_mut(), null_mut(), null_mut());
    // SAFETY: takes this thread's exception, and makes an object of it.
    let error = unsafe {
        python().PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
        python().PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut traceback);
        if !traceback.is_null() && !value.is_null() {
            python().PyException_SetTraceback(value, traceback);
        }
        Object::borrowed(&value).cloned().unwrap_or_else(none)
    };
    let ended = tuple([begun, &error].into_iter()).and_then(|all| state.failed.call(&all, None));
    match ended {
        // SAFETY: gives back what was taken.
        Ok(_) => unsafe { python().PyErr_Restore(kind, value, traceback) },
        // SAFETY: what was taken, which another exception has replaced.
        Err(Raised) => unsafe {
            for held in [kind, value, traceback] {
                drop(Object::made(held));
            }
        },
    }
    Raised
}
