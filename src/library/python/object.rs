//! References to Python's objects, and operations on them. Code that has such a reference holds the GIL: only functions
//! that Python calls get one, and they pass none to other threads.

use std::ffi::{CStr, c_void};
use std::ptr::{NonNull, null_mut};

use super::raw::{PyObject, python};

/// An exception is set on this thread.
#[derive(Debug)]
pub struct Raised;

pub type Result<T> = std::result::Result<T, Raised>;

/// An owned reference to a Python object. `&Object` is a borrowed reference.
#[repr(transparent)]
#[derive(Debug)]
pub struct Object(NonNull<PyObject>);

impl Clone for Object {
    fn clone(&self) -> Object {
        // SAFETY: alive, as this reference is.
        unsafe { python().Py_IncRef(self.address()) };
        Object(self.0)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: this reference was owned, and is not used any more.
        unsafe { python().Py_DecRef(self.address()) };
    }
}

impl Object {
    /// What a function of CPython's has answered: a new reference, or NULL with an exception.
    ///
    /// # Safety
    ///
    /// `made` is one or the other.
    pub unsafe fn made(made: *mut PyObject) -> Result<Object> {
        NonNull::new(made).map(Object).ok_or(Raised)
    }

    /// A borrowed reference, NULL for none.
    ///
    /// # Safety
    ///
    /// The object is alive as long as the place is.
    pub unsafe fn borrowed(place: &*mut PyObject) -> Option<&Object> {
        // SAFETY: an `Option` of a reference like this is a pointer that may be NULL.
        unsafe { &*std::ptr::from_ref(place).cast::<Option<Object>>() }.as_ref()
    }

    pub fn address(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    /// Gives the reference to the caller.
    pub fn give(self) -> *mut PyObject {
        let address = self.address();
        std::mem::forget(self);
        address
    }

    pub fn is(&self, other: &Object) -> bool {
        self.0 == other.0
    }

    /// The type's address.
    pub fn kind(&self) -> *mut PyObject {
        // SAFETY: alive; every object begins like this.
        unsafe { self.0.as_ref() }.kind
    }

    pub fn is_a(&self, kind: *mut PyObject) -> bool {
        // SAFETY: both are types.
        self.kind() == kind || unsafe { python().PyType_IsSubtype(self.kind(), kind) } != 0
    }

    pub fn is_none(&self) -> bool {
        self.address() == python().none
    }

    /// How many references there are to it.
    pub fn references(&self) -> isize {
        // SAFETY: alive; every object begins like this.
        unsafe { self.0.as_ref() }.references
    }

    pub fn is_true(&self) -> Result<bool> {
        // SAFETY: alive.
        match unsafe { python().PyObject_IsTrue(self.address()) } {
            -1 => Err(Raised),
            answer => Ok(answer != 0),
        }
    }

    pub fn attribute(&self, name: &Object) -> Result<Object> {
        // SAFETY: both are alive, the name is a text.
        unsafe { Object::made(python().PyObject_GetAttr(self.address(), name.address())) }
    }

    /// Calls it with a tuple of arguments and, maybe, a dict of named ones.
    pub fn call(&self, arguments: &Object, named: Option<&Object>) -> Result<Object> {
        let named = named.map_or(null_mut(), Object::address);
        // SAFETY: all are alive; the arguments are a tuple and a dict.
        unsafe { Object::made(python().PyObject_Call(self.address(), arguments.address(), named)) }
    }

    /// Calls it without an argument.
    pub fn call_bare(&self) -> Result<Object> {
        // SAFETY: alive; NULL stands for no arguments.
        unsafe { Object::made(python().PyObject_CallObject(self.address(), null_mut())) }
    }

    /// The value of a key, where this is a dict.
    pub fn value(&self, key: &Object) -> Result<Option<Object>> {
        if !self.is_a(python().dict) {
            return Err(type_error(c"a dict was expected"));
        }
        // SAFETY: a dict and a key; what it answers is borrowed.
        let found = unsafe { python().PyDict_GetItemWithError(self.address(), key.address()) };
        // SAFETY: the dict holds it, and no code has run since.
        match unsafe { Object::borrowed(&found) } {
            Some(found) => Ok(Some(found.clone())),
            None if occurred() => Err(Raised),
            None => Ok(None),
        }
    }

    pub fn set_value(&self, key: &Object, value: &Object) -> Result<()> {
        // SAFETY: all are alive; what is no dict makes it raise.
        let set =
            unsafe { python().PyDict_SetItem(self.address(), key.address(), value.address()) };
        if set == 0 { Ok(()) } else { Err(Raised) }
    }

    /// Removes a key, where this is a dict.
    pub fn remove(&self, key: &Object) -> Result<()> {
        // SAFETY: both are alive; what is no dict makes it raise.
        let removed = unsafe { python().PyDict_DelItem(self.address(), key.address()) };
        if removed == 0 { Ok(()) } else { Err(Raised) }
    }

    /// An empty list or set, where this is one; otherwise itself.
    pub fn as_new(&self) -> Result<Object> {
        // SAFETY: makes an object.
        unsafe {
            match self.kind() {
                kind if kind == python().list => Object::made(python().PyList_New(0)),
                kind if kind == python().set => Object::made(python().PySet_New(null_mut())),
                _ => Ok(self.clone()),
            }
        }
    }

    /// Keys and values, where this is a dict.
    pub fn items(&self) -> Vec<(Object, Object)> {
        let (mut at, mut key, mut value) = (0, null_mut(), null_mut());
        let mut found = Vec::new();
        // SAFETY: a dict, which no code changes meanwhile; what it answers is borrowed from it.
        unsafe {
            let dict = self.address();
            while python().PyDict_Next(dict, &raw mut at, &raw mut key, &raw mut value) != 0 {
                if let (Some(key), Some(value)) = (Object::borrowed(&key), Object::borrowed(&value))
                {
                    found.push((key.clone(), value.clone()));
                }
            }
        }
        found
    }

    /// The length of a tuple.
    pub fn tuple_length(&self) -> Result<usize> {
        // SAFETY: alive; what is no tuple makes it raise.
        usize::try_from(unsafe { python().PyTuple_Size(self.address()) }).map_err(|_| Raised)
    }

    /// An element of a tuple.
    pub fn element(&self, index: usize) -> Result<Object> {
        // SAFETY: alive; what is no tuple, or too short, makes it raise.
        let found = unsafe { python().PyTuple_GetItem(self.address(), index as isize) };
        // SAFETY: the tuple holds it.
        unsafe { Object::borrowed(&found) }.cloned().ok_or(Raised)
    }

    /// The length of a list.
    pub fn list_length(&self) -> Result<usize> {
        // SAFETY: alive; what is no list makes it raise.
        usize::try_from(unsafe { python().PyList_Size(self.address()) }).map_err(|_| Raised)
    }

    /// An element of a list.
    pub fn list_element(&self, index: usize) -> Result<Object> {
        // SAFETY: alive; what is no list, or too short, makes it raise.
        let found = unsafe { python().PyList_GetItem(self.address(), index as isize) };
        // SAFETY: the list holds it.
        unsafe { Object::borrowed(&found) }.cloned().ok_or(Raised)
    }

    pub fn unsigned(&self) -> Result<u64> {
        // SAFETY: alive; what is no such number makes it raise.
        let number = unsafe { python().PyLong_AsUnsignedLongLong(self.address()) };
        if number == u64::MAX && occurred() {
            return Err(Raised);
        }
        Ok(number)
    }

    /// The text of a `str`; `None` for another type, and for text that UTF-8 cannot express (lone surrogates).
    pub fn text(&self) -> Option<&str> {
        let mut size = 0;
        // SAFETY: alive; what is no text makes it raise.
        let text = unsafe { python().PyUnicode_AsUTF8AndSize(self.address(), &raw mut size) };
        if text.is_null() {
            // SAFETY: clears what it has raised.
            unsafe { python().PyErr_Clear() };
            return None;
        }
        // SAFETY: UTF-8 of this size, which the object keeps.
        let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size as usize) };
        std::str::from_utf8(bytes).ok()
    }
}

pub fn occurred() -> bool {
    // SAFETY: looks at this thread's exception.
    !unsafe { python().PyErr_Occurred() }.is_null()
}

/// Takes this thread's exception away, if there is one.
pub fn clear() {
    // SAFETY: changes this thread's exception only.
    unsafe { python().PyErr_Clear() };
}

/// Takes this thread's exception away, runs `body`, and sets the exception again.
pub fn saved(body: impl FnOnce()) {
    let (mut kind, mut value, mut traceback) = (null_mut(), null_mut(), null_mut());
    // SAFETY: three places of this function's.
    unsafe {
        python().PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
    }
    body();
    // SAFETY: what was taken above goes back, in the place of what the body may have raised.
    unsafe { python().PyErr_Restore(kind, value, traceback) };
}

/// Raises a TypeError.
pub fn type_error(message: &CStr) -> Raised {
    raise(python().type_error, message)
}

/// Raises an exception of the class that CPython's variable `class` names.
pub fn raise(class: *mut PyObject, message: &CStr) -> Raised {
    // SAFETY: the variable holds a class of exceptions.
    unsafe { python().PyErr_SetString(*class.cast::<*mut PyObject>(), message.as_ptr()) };
    Raised
}

pub fn none() -> Object {
    of(python().none)
}

pub fn boolean(value: bool) -> Object {
    of(if value { python().yes } else { python().no })
}

/// A new reference to an object that lives as long as the interpreter.
fn of(immortal: *mut PyObject) -> Object {
    // SAFETY: such an object is never gone.
    match unsafe { Object::borrowed(&immortal) } {
        Some(object) => object.clone(),
        // SAFETY: the table was filled with addresses that are not NULL.
        None => unsafe { std::hint::unreachable_unchecked() },
    }
}

pub fn interned(text: &CStr) -> Result<Object> {
    // SAFETY: a text that ends with NUL.
    unsafe { Object::made(python().PyUnicode_InternFromString(text.as_ptr())) }
}

/// Python's `id()`.
pub fn id(object: &Object) -> Result<Object> {
    // SAFETY: only the address is read.
    unsafe { Object::made(python().PyLong_FromVoidPtr(object.address().cast::<c_void>())) }
}

pub fn number(value: u64) -> Result<Object> {
    // SAFETY: makes a number.
    unsafe { Object::made(python().PyLong_FromUnsignedLongLong(value)) }
}

pub fn dict() -> Result<Object> {
    // SAFETY: makes a dict.
    unsafe { Object::made(python().PyDict_New()) }
}

pub fn tuple<'a>(elements: impl ExactSizeIterator<Item = &'a Object>) -> Result<Object> {
    // SAFETY: makes a tuple, whose places are filled below before anybody sees it.
    let made = unsafe { Object::made(python().PyTuple_New(elements.len() as isize)) }?;
    for (index, element) in elements.enumerate() {
        // SAFETY: a new tuple that has this place; it takes the reference.
        unsafe {
            python().PyTuple_SetItem(made.address(), index as isize, element.clone().give());
        }
    }
    Ok(made)
}
