//! Python's calls of modules, without `ctypes` and without Python frames of ours: the extension module
//! `libgraphpatch._native`, which lives in this library so that the two can never be of different versions.
//!
//! Owns the object in the place of `torch.nn.Module.__call__`, the thread's open scope as Python sees it, and the conversion
//! of Python values for the C ABI. Calls of modules come in; calls of the C ABI go out. Rare cases go to the package's own
//! functions, which can also do everything without the extension (bindings/python/libgraphpatch/_module_call.py).
//!
//! The library is not linked with Python: CPython's functions are looked up in the process when it imports the extension.

mod block;
mod call;
mod dispatch;
mod greenlets;
mod host_values;
mod module_call;
mod object;
mod owner;
mod raw;
mod record;
mod run;
mod scope;
mod shelter;
mod state;
mod thread;
mod values;

pub(crate) use raw::find_symbol;

use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

use call::answer;
use object::{Object, Result, none, raise};
use raw::{Method, ModuleDefinition, PyObject, Slot, python};

/// The package checks this number. It rises with each change of what the extension takes or returns.
const VERSION: u64 = 9;

/// What Python calls when it imports the extension: describes the module. NULL without an exception where this is no CPython
/// that has all that is needed; the package then goes on without the extension.
///
/// # Safety
///
/// Only Python's import calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__native() -> *mut PyObject {
    if !raw::load() {
        return null_mut();
    }
    let method = |name: &'static CStr, function: *mut c_void| Method {
        name: name.as_ptr(),
        function,
        flags: raw::VARARGS,
        about: std::ptr::null(),
    };
    let methods = vec![
        method(c"configure", configure as *mut c_void),
        method(c"watching", watching as *mut c_void),
        method(c"in_compiled", in_compiled as *mut c_void),
        method(c"settling", settling as *mut c_void),
        method(c"module_call", module_call as *mut c_void),
        method(c"enter", enter as *mut c_void),
        method(c"leave", leave as *mut c_void),
        method(c"owner", own as *mut c_void),
        method(c"switched", switched as *mut c_void),
        method(c"sheltered", sheltered as *mut c_void),
        method(c"persisted", persisted as *mut c_void),
        Method {
            name: std::ptr::null(),
            ..method(c"", null_mut())
        },
    ];
    let slots = vec![
        Slot {
            id: raw::MOD_EXEC,
            value: fill as *mut c_void,
        },
        Slot {
            id: 0,
            value: null_mut(),
        },
    ];
    // Python uses the definition until it ends, so it is never freed.
    let definition = Box::leak(Box::new(ModuleDefinition {
        base: PyObject {
            references: 1,
            kind: null_mut(),
        },
        init: null_mut(),
        index: 0,
        copy: null_mut(),
        name: c"libgraphpatch._native".as_ptr(),
        about: std::ptr::null(),
        size: 0,
        methods: methods.leak().as_mut_ptr(),
        slots: slots.leak().as_mut_ptr(),
        traverse: null_mut(),
        clear: null_mut(),
        free: null_mut(),
    }));
    // SAFETY: a whole description, which stays.
    unsafe { python().PyModuleDef_Init(definition) }
}

/// Fills the new module.
unsafe extern "C" fn fill(module: *mut PyObject) -> c_int {
    // SAFETY: Python holds the module during the call.
    let filled = unsafe { Object::borrowed(&module) }.map(fill_module);
    match filled {
        Some(Ok(())) => 0,
        _ => -1,
    }
}

fn fill_module(module: &Object) -> Result<()> {
    // SAFETY: this thread has an interpreter.
    let interpreter =
        unsafe { python().PyInterpreterState_GetID(python().PyInterpreterState_Get()) };
    if interpreter != 0 {
        let why =
            c"libgraphpatch works in a process's first Python interpreter only, as torch does";
        return Err(raise(python().import_error, why));
    }
    let parts = [
        (c"VERSION", object::number(VERSION)?),
        (c"FrameBase", record::make_type(&record::FRAME)?),
        (c"ScopeBase", record::make_type(&record::KNOWN)?),
        (c"ThreadFrame", thread::make_type()?),
        (c"ModuleCall", module_call::make_type()?),
        (c"Owner", owner::make_type()?),
    ];
    for (name, part) in parts {
        // SAFETY: a module, a name and an object; it takes a reference of its own.
        let added = unsafe {
            python().PyModule_AddObjectRef(module.address(), name.as_ptr(), part.address())
        };
        if added != 0 {
            return Err(object::Raised);
        }
    }
    Ok(())
}

/// A function of the module, given its arguments as a tuple.
fn function(
    arguments: *mut PyObject,
    body: impl FnOnce(&Object) -> Result<Object>,
) -> *mut PyObject {
    // SAFETY: Python holds the arguments during the call.
    match unsafe { Object::borrowed(&arguments) } {
        Some(arguments) => answer(body(arguments)),
        None => null_mut(),
    }
}

unsafe extern "C" fn configure(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, |given| state::configure(given).map(|()| none()))
}

unsafe extern "C" fn watching(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, |given| state::watching(given).map(|()| none()))
}

unsafe extern "C" fn in_compiled(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, |given| {
        thread::in_compiled(given).map(|()| none())
    })
}

unsafe extern "C" fn settling(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, |given| thread::settling(given).map(|()| none()))
}

unsafe extern "C" fn module_call(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, module_call::make)
}

unsafe extern "C" fn enter(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, block::enter)
}

unsafe extern "C" fn leave(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, block::leave)
}

unsafe extern "C" fn own(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, owner::make)
}

unsafe extern "C" fn switched(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, greenlets::switched)
}

unsafe extern "C" fn sheltered(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, shelter::sheltered)
}

unsafe extern "C" fn persisted(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    function(arguments, shelter::persisted)
}
