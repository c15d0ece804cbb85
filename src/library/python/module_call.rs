//! The object that takes the place of `torch.nn.Module.__call__`, and of the `forward` of modules that is called directly. To
//! everything but calls it looks like a function: in place of a `forward` like that function itself. A look-up
//! of the attribute in the class gives the Python function that does the same (`fallback`). A look-up in a module gives a
//! method of the object itself, which has all attributes of that function. So `inspect`, `pickle` and `torch.compile`
//! see a Python function.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::call::{Call, answer};
use super::dispatch;
use super::object::{Object, Result, raise};
use super::raw::{self, Member, PyObject, VectorCall, Visit, python};
use super::record::{free, new_type, visit_all};

#[repr(C)]
struct ModuleCall {
    base: PyObject,
    vectorcall: VectorCall,
    /// CPython's list of weak references to it.
    weak: *mut PyObject,
    original: Option<Object>,
    fallback: Option<Object>,
    is_torchs: bool,
    is_direct: bool,
}

pub fn make_type() -> Result<Object> {
    let place = |name: &'static CStr, offset: usize| Member {
        name: name.as_ptr(),
        kind: raw::MEMBER_SIZE,
        offset: offset as isize,
        flags: raw::READ_ONLY,
        about: std::ptr::null(),
    };
    let members = vec![
        place(c"__vectorcalloffset__", offset_of!(ModuleCall, vectorcall)),
        place(c"__weaklistoffset__", offset_of!(ModuleCall, weak)),
        Member {
            name: std::ptr::null(),
            kind: 0,
            offset: 0,
            flags: 0,
            about: std::ptr::null(),
        },
    ];
    let slots = [
        (
            raw::TP_CALL,
            python().functions.PyVectorcall_Call as *mut c_void,
        ),
        (raw::TP_DESCR_GET, bind as *mut c_void),
        (raw::TP_GETATTRO, attribute as *mut c_void),
        (raw::TP_RICHCOMPARE, compare as *mut c_void),
        (raw::TP_HASH, hash as *mut c_void),
        (raw::TP_TRAVERSE, traverse as *mut c_void),
        (raw::TP_CLEAR, clear as *mut c_void),
        (raw::TP_DEALLOC, deallocate as *mut c_void),
        // Some versions of CPython read the members as long as the type lives, so they are never freed.
        (raw::TP_MEMBERS, members.leak().as_mut_ptr().cast()),
    ];
    let flags = raw::FLAG_DEFAULT | raw::FLAG_GC | raw::FLAG_VECTORCALL | raw::FLAG_METHOD;
    new_type(
        c"libgraphpatch._native.ModuleCall",
        size_of::<ModuleCall>(),
        flags,
        &slots,
    )
}

/// `module_call(type, original, fallback, is_torchs, is_direct)`: an object that calls `original` such that calls are seen. Calls
/// that are not plain go to `fallback`, which does all of it in Python.
pub fn make(given: &Object) -> Result<Object> {
    let (kind, original) = (given.element(0)?, given.element(1)?);
    let (fallback, is_torchs) = (given.element(2)?, given.element(3)?.is_true()?);
    // SAFETY: the type of `make_type`; the allocation is cleared.
    let made = unsafe { Object::made(python().PyType_GenericAlloc(kind.address(), 0)) }?;
    // SAFETY: nobody else has seen it, and the type's objects are such.
    let callable = unsafe { &mut *made.address().cast::<ModuleCall>() };
    callable.vectorcall = called;
    callable.original = Some(original);
    callable.fallback = Some(fallback);
    callable.is_torchs = is_torchs;
    callable.is_direct = given.element(4)?.is_true()?;
    Ok(made)
}

unsafe extern "C" fn called(
    callable: *mut PyObject,
    arguments: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    let work = || {
        // SAFETY: Python calls it with an object of the type, and with as many arguments as it says, positional ones first;
        // all are alive during the call.
        let call = unsafe {
            let callable = &*callable.cast::<ModuleCall>();
            let names = Object::borrowed(&names);
            let named = names.map_or(Ok(0), Object::tuple_length)?;
            let positional = flags & !raw::OFFSET;
            let all: &[Object] = match positional + named {
                0 => &[],
                count => std::slice::from_raw_parts(arguments.cast::<Object>(), count),
            };
            let (arguments, named) = all.split_at_checked(positional).unwrap_or_default();
            Call {
                original: callable.original.as_ref().ok_or_else(gone)?,
                fallback: callable.fallback.as_ref().ok_or_else(gone)?,
                is_torchs: callable.is_torchs,
                is_direct: callable.is_direct,
                arguments,
                flags,
                names,
                named,
            }
        };
        dispatch::call(&call)
    };
    answer(
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(raise(python().system_error, c"a panic; please report it"))),
    )
}

fn gone() -> super::object::Raised {
    raise(python().system_error, c"the call was cleared")
}

/// A look-up in a class gives the Python function. A look-up in a module gives a method of this object.
unsafe extern "C" fn bind(
    callable: *mut PyObject,
    object: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let work = || {
        // SAFETY: Python calls it with living objects; NULL and None stand for a look-up in the class.
        unsafe {
            match Object::borrowed(&object).filter(|object| !object.is_none()) {
                None => fallback(callable).cloned(),
                Some(object) => Object::made(python().PyMethod_New(callable, object.address())),
            }
        }
    };
    answer(work())
}

/// The Python function that does the same.
///
/// # Safety
///
/// `callable` is a [`ModuleCall`], and alive as long as `'a`.
unsafe fn fallback<'a>(callable: *mut PyObject) -> Result<&'a Object> {
    // SAFETY: by this function's contract.
    let callable = unsafe { &*callable.cast::<ModuleCall>() };
    callable.fallback.as_ref().ok_or_else(gone)
}

/// The function that this one looks like.
///
/// # Safety
///
/// As [`fallback`].
unsafe fn seen<'a>(callable: *mut PyObject) -> Result<&'a Object> {
    // SAFETY: by this function's contract.
    let held = unsafe { &*callable.cast::<ModuleCall>() };
    match held.is_direct {
        true => held.original.as_ref().ok_or_else(gone),
        // SAFETY: as above.
        false => unsafe { fallback(callable) },
    }
}

/// All attributes are those of the function, also `__class__`.
unsafe extern "C" fn attribute(callable: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    let work = || {
        // SAFETY: Python holds both during the call.
        unsafe {
            let name = Object::borrowed(&name).ok_or_else(gone)?;
            seen(callable)?.attribute(name)
        }
    };
    answer(work())
}

/// The object equals the function, and has the same hash.
unsafe extern "C" fn compare(
    callable: *mut PyObject,
    other: *mut PyObject,
    how: c_int,
) -> *mut PyObject {
    let work = || {
        // SAFETY: Python holds both during the call; a function of CPython's compares what they stand for.
        unsafe {
            let own = seen(callable)?;
            let other = match (*other).kind == (*callable).kind {
                true => seen(other)?.address(),
                false => other,
            };
            Object::made(python().PyObject_RichCompare(own.address(), other, how))
        }
    };
    answer(work())
}

unsafe extern "C" fn hash(callable: *mut PyObject) -> isize {
    // SAFETY: Python holds it during the call.
    match unsafe { seen(callable) } {
        // SAFETY: alive.
        Ok(function) => unsafe { python().PyObject_Hash(function.address()) },
        Err(_) => -1,
    }
}

unsafe extern "C" fn traverse(callable: *mut PyObject, visit: Visit, to: *mut c_void) -> c_int {
    // SAFETY: Python calls it with an object of the type and a visitor of its own.
    unsafe {
        let (kind, callable) = ((*callable).kind, &*callable.cast::<ModuleCall>());
        let held = callable.original.iter().chain(callable.fallback.as_ref());
        visit_all(held, kind, visit, to)
    }
}

unsafe extern "C" fn clear(callable: *mut PyObject) -> c_int {
    let callable = callable.cast::<ModuleCall>();
    // SAFETY: Python calls it with an object of the type. Each place is empty before what it held is let go.
    unsafe {
        let original = (*callable).original.take();
        drop(original);
        let fallback = (*callable).fallback.take();
        drop(fallback);
    }
    0
}

unsafe extern "C" fn deallocate(callable: *mut PyObject) {
    // SAFETY: Python calls it with an object of the type that nobody holds.
    unsafe {
        python().PyObject_GC_UnTrack(callable.cast());
        if !(*callable.cast::<ModuleCall>()).weak.is_null() {
            python().PyObject_ClearWeakRefs(callable);
        }
        clear(callable);
        free(callable);
    }
}
