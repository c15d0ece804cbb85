//! The functions and types of CPython that are needed here: those of its limited API, and some that every CPython since
//! 3.10 exports besides. They are looked up in the process when Python imports the extension, so that a program without
//! Python can load this library.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use graphpatch_locks::OnceLock;

/// What every object begins with, in an interpreter that has a GIL.
#[repr(C)]
#[derive(Debug)]
pub struct PyObject {
    pub references: isize,
    pub kind: *mut PyObject,
}

pub type Visit = unsafe extern "C" fn(*mut PyObject, *mut c_void) -> c_int;
pub type VectorCall = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    usize,
    *mut PyObject,
) -> *mut PyObject;

#[repr(C)]
pub struct Slot {
    pub id: c_int,
    pub value: *mut c_void,
}

#[repr(C)]
pub struct Spec {
    pub name: *const c_char,
    pub size: c_int,
    pub item: c_int,
    pub flags: c_uint,
    pub slots: *mut Slot,
}

#[repr(C)]
pub struct Member {
    pub name: *const c_char,
    pub kind: c_int,
    pub offset: isize,
    pub flags: c_int,
    pub about: *const c_char,
}

#[repr(C)]
pub struct Method {
    pub name: *const c_char,
    pub function: *mut c_void,
    pub flags: c_int,
    pub about: *const c_char,
}

#[repr(C)]
pub struct ModuleDefinition {
    pub base: PyObject,
    pub init: *mut c_void,
    pub index: isize,
    pub copy: *mut PyObject,
    pub name: *const c_char,
    pub about: *const c_char,
    pub size: isize,
    pub methods: *mut Method,
    pub slots: *mut Slot,
    pub traverse: *mut c_void,
    pub clear: *mut c_void,
    pub free: *mut c_void,
}

pub const TP_CALL: c_int = 50;
pub const TP_CLEAR: c_int = 51;
pub const TP_DEALLOC: c_int = 52;
pub const TP_DESCR_GET: c_int = 54;
pub const TP_DESCR_SET: c_int = 55;
pub const TP_GETATTRO: c_int = 58;
pub const TP_HASH: c_int = 59;
pub const TP_RICHCOMPARE: c_int = 67;
pub const TP_TRAVERSE: c_int = 71;
pub const TP_MEMBERS: c_int = 72;
pub const TP_FREE: c_int = 74;
pub const MOD_EXEC: c_int = 2;

pub const FLAG_DEFAULT: c_uint = 1 << 18;
pub const FLAG_BASE: c_uint = 1 << 10;
pub const FLAG_VECTORCALL: c_uint = 1 << 11;
pub const FLAG_GC: c_uint = 1 << 14;
pub const FLAG_METHOD: c_uint = 1 << 17;

pub const MEMBER_OBJECT: c_int = 16;
pub const MEMBER_UNSIGNED: c_int = 18;
pub const MEMBER_SIZE: c_int = 19;
pub const READ_ONLY: c_int = 1;

pub const VARARGS: c_int = 1;

/// The flag in a vectorcall's number of arguments that lets the callee write to the place before the first argument.
pub const OFFSET: usize = 1 << (usize::BITS - 1);

/// Where CPython's `symbol` lies, if the process has it.
pub(crate) fn find_symbol(symbol: &CStr) -> Option<*mut c_void> {
    // SAFETY: a look-up in the process's global scope, where an interpreter's own symbols are.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Keeps a thread where it is, when Python ends it in the middle of a call: an interpreter that is being shut down ends daemon
/// threads by `pthread_exit` as soon as they ask for the GIL (CPython 3.14 lets them hang). That unwinds the stack. The unwinding
/// may not go through Rust, and what it would drop belongs to Python.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// Runs `body`, which calls code that may take the GIL.
fn stays<T>(body: impl FnOnce() -> T) -> T {
    let stays = Stays;
    let result = body();
    std::mem::forget(stays);
    result
}

macro_rules! table {
    (functions { $($name:ident($($given:ident: $argument:ty),*) -> $result:ty;)* }
     types { $($kind:ident: $kind_symbol:literal;)* }) => {
        /// CPython's functions, as they were found.
        #[allow(non_snake_case, reason = "CPython's own names")]
        pub struct Functions {
            $(pub $name: unsafe extern "C-unwind" fn($($argument),*) -> $result,)*
        }

        /// CPython, as it was found. Its methods call the functions.
        pub struct Table {
            pub functions: Functions,
            $(pub $kind: *mut PyObject,)*
        }

        #[allow(non_snake_case, dead_code, reason = "CPython's own names; some are given to Python, and not called here")]
        impl Table {
            fn find() -> Option<Table> {
                Some(Table {
                    functions: Functions {
                        $($name: {
                            let name = concat!(stringify!($name), "\0");
                            let symbol = find_symbol(CStr::from_bytes_with_nul(name.as_bytes()).ok()?)?;
                            // SAFETY: CPython declares the function with this signature since 3.10.
                            unsafe {
                                std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn($($argument),*) -> $result>(symbol)
                            }
                        },)*
                    },
                    $($kind: find_symbol($kind_symbol)?.cast(),)*
                })
            }

            $(
                /// # Safety
                ///
                /// That of CPython's function.
                #[inline]
                pub unsafe fn $name(&self, $($given: $argument),*) -> $result {
                    // SAFETY: by this function's contract.
                    stays(|| unsafe { (self.functions.$name)($($given),*) })
                }
            )*
        }
    };
}

table! {
    functions {
        Py_IncRef(a: *mut PyObject) -> ();
        Py_DecRef(a: *mut PyObject) -> ();
        PyObject_GetAttr(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        PyObject_Hash(a: *mut PyObject) -> isize;
        PyObject_RichCompare(a: *mut PyObject, b: *mut PyObject, c: c_int) -> *mut PyObject;
        PyObject_IsTrue(a: *mut PyObject) -> c_int;
        PyObject_Call(a: *mut PyObject, b: *mut PyObject, c: *mut PyObject) -> *mut PyObject;
        PyObject_CallObject(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        PyObject_VectorcallMethod(a: *mut PyObject, b: *const *mut PyObject, c: usize, d: *mut PyObject) -> *mut PyObject;
        PyVectorcall_Call(a: *mut PyObject, b: *mut PyObject, c: *mut PyObject) -> *mut PyObject;
        PyObject_GC_UnTrack(a: *mut c_void) -> ();
        PyObject_ClearWeakRefs(a: *mut PyObject) -> ();
        PyMethod_New(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        PyDict_New() -> *mut PyObject;
        PyDict_GetItemWithError(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject;
        PyDict_SetItem(a: *mut PyObject, b: *mut PyObject, c: *mut PyObject) -> c_int;
        PyDict_DelItem(a: *mut PyObject, b: *mut PyObject) -> c_int;
        PyDict_Next(a: *mut PyObject, b: *mut isize, c: *mut *mut PyObject, d: *mut *mut PyObject) -> c_int;
        PyTuple_New(a: isize) -> *mut PyObject;
        PyTuple_SetItem(a: *mut PyObject, b: isize, c: *mut PyObject) -> c_int;
        PyTuple_GetItem(a: *mut PyObject, b: isize) -> *mut PyObject;
        PyTuple_Size(a: *mut PyObject) -> isize;
        PyList_New(a: isize) -> *mut PyObject;
        PyList_GetItem(a: *mut PyObject, b: isize) -> *mut PyObject;
        PyList_Size(a: *mut PyObject) -> isize;
        PySet_New(a: *mut PyObject) -> *mut PyObject;
        PyLong_FromVoidPtr(a: *mut c_void) -> *mut PyObject;
        PyLong_FromUnsignedLongLong(a: u64) -> *mut PyObject;
        PyLong_AsUnsignedLongLong(a: *mut PyObject) -> u64;
        PyLong_AsLongLongAndOverflow(a: *mut PyObject, b: *mut c_int) -> i64;
        PyFloat_AsDouble(a: *mut PyObject) -> f64;
        PyUnicode_InternFromString(a: *const c_char) -> *mut PyObject;
        PyUnicode_AsUTF8AndSize(a: *mut PyObject, b: *mut isize) -> *const c_char;
        PyErr_Occurred() -> *mut PyObject;
        PyErr_Clear() -> ();
        PyErr_Fetch(a: *mut *mut PyObject, b: *mut *mut PyObject, c: *mut *mut PyObject) -> ();
        PyErr_NormalizeException(a: *mut *mut PyObject, b: *mut *mut PyObject, c: *mut *mut PyObject) -> ();
        PyErr_Restore(a: *mut PyObject, b: *mut PyObject, c: *mut PyObject) -> ();
        PyException_SetTraceback(a: *mut PyObject, b: *mut PyObject) -> c_int;
        PyErr_SetString(a: *mut PyObject, b: *const c_char) -> ();
        PyErr_SetObject(a: *mut PyObject, b: *mut PyObject) -> ();
        Py_AddPendingCall(a: unsafe extern "C" fn(*mut c_void) -> c_int, b: *mut c_void) -> c_int;
        PyThread_get_thread_ident() -> std::ffi::c_ulong;
        PyThreadState_SetAsyncExc(a: std::ffi::c_ulong, b: *mut PyObject) -> c_int;
        PyEval_SaveThread() -> *mut c_void;
        PyEval_RestoreThread(a: *mut c_void) -> ();
        PyInterpreterState_Get() -> *mut c_void;
        PyInterpreterState_GetID(a: *mut c_void) -> i64;
        PyType_FromSpec(a: *mut Spec) -> *mut PyObject;
        PyType_GenericAlloc(a: *mut PyObject, b: isize) -> *mut PyObject;
        PyType_GetSlot(a: *mut PyObject, b: c_int) -> *mut c_void;
        PyType_IsSubtype(a: *mut PyObject, b: *mut PyObject) -> c_int;
        PyModuleDef_Init(a: *mut ModuleDefinition) -> *mut PyObject;
        PyModule_AddObjectRef(a: *mut PyObject, b: *const c_char, c: *mut PyObject) -> c_int;
    }
    types {
        none: c"_Py_NoneStruct";
        yes: c"_Py_TrueStruct";
        no: c"_Py_FalseStruct";
        tuple: c"PyTuple_Type";
        list: c"PyList_Type";
        dict: c"PyDict_Type";
        set: c"PySet_Type";
        int: c"PyLong_Type";
        float: c"PyFloat_Type";
        text: c"PyUnicode_Type";
        import_error: c"PyExc_ImportError";
        type_error: c"PyExc_TypeError";
        system_error: c"PyExc_SystemError";
    }
}

// SAFETY: addresses of functions and of objects that live as long as the interpreter.
unsafe impl Send for Table {}
// SAFETY: as above; nothing of it is ever written.
unsafe impl Sync for Table {}

static TABLE: OnceLock<Table> = OnceLock::new();

/// Looks CPython up in the process. False if there is none, or if it lacks a function that is needed.
pub fn load() -> bool {
    if TABLE.get().is_some() {
        return true;
    }
    Table::find().is_some_and(|found| TABLE.set(found).is_ok() || TABLE.get().is_some())
}

/// CPython's functions. [`load`] must have succeeded before. It has wherever Python calls a function of this extension.
#[inline]
pub fn python() -> &'static Table {
    match TABLE.get() {
        Some(table) => table,
        // SAFETY: only CPython calls here, through functions that it learned of when `load` had succeeded.
        None => unsafe { std::hint::unreachable_unchecked() },
    }
}
