//! Hooks of member functions of libtorch in a preloaded process. Only flat runs use them, for two purposes. Operations
//! that load, save or move weights are no part of the model's run. And a call on a whole `torch::nn::Module` tells which
//! tensors are its parameters.
//!
//! Each hook passes the integer argument registers on as they came. That is enough, since all arguments are pointers,
//! numbers, flags and devices (two bytes, or three for an optional device), which travel in these registers alone.
//! Exceptions pass through. If a libtorch has a member under another name, its calls are not seen; nothing else changes.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::table;
use graphpatch_loader as loader;
use graphpatch_torch::{OwnCall, is_flat};

type Registers = unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize) -> usize;

/// A function of libtorch, or of a library that it needs, also where these were loaded by `dlopen`.
pub(super) fn of_libtorch(name: &CStr) -> *mut c_void {
    let path = loader::loaded_path().map(|path| path.into_os_string().into_encoded_bytes());
    let Some(path) = path.and_then(|path| std::ffi::CString::new(path).ok()) else {
        return std::ptr::null_mut();
    };
    // SAFETY: dlopen and dlsym with valid strings; RTLD_NOLOAD only looks for what is there.
    unsafe {
        match libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) {
            library if library.is_null() => std::ptr::null_mut(),
            library => libc::dlsym(library, name.as_ptr()),
        }
    }
}

/// The address of libtorch's own member: the next definition after ours, or one in a library that was loaded by `dlopen`.
pub(super) fn real(name: &CStr, known: &AtomicPtr<c_void>) -> *const c_void {
    let mut address = known.load(Ordering::Acquire);
    if address.is_null() {
        // SAFETY: a look-up of a valid name.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        if address.is_null() {
            address = of_libtorch(name);
        }
        known.store(address, Ordering::Release);
    }
    if address.is_null() {
        // Not reached: whoever calls this symbol was linked against libtorch's member, so libtorch is loaded.
        std::process::abort();
    }
    address
}

/// A C string of a text that ends with NUL.
pub(super) const fn c_string(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}

/// Which argument is the module.
macro_rules! module_of {
    (first, $a:ident, $b:ident) => {
        $a
    };
    (second, $a:ident, $b:ident) => {
        $b
    };
    (none, $a:ident, $b:ident) => {
        0
    };
}

macro_rules! member {
    ($name:ident, $symbol:literal, $module:ident) => {
        /// # Safety
        /// As the member of libtorch's.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $name(
            a: usize,
            b: usize,
            c: usize,
            d: usize,
            e: usize,
            f: usize,
        ) -> usize {
            static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            const NAME: &CStr = c_string(concat!($symbol, "\0"));
            let real = real(NAME, &REAL);
            // SAFETY: the address is that of a member all of whose arguments travel in these registers.
            let real = unsafe { std::mem::transmute::<*const c_void, Registers>(real) };
            let module = std::ptr::with_exposed_provenance(module_of!($module, a, b));
            // SAFETY: NULL, or the module that the member is called on, which is alive until it returns.
            let _own = is_flat().then(|| unsafe { OwnCall::enter(module) });
            // SAFETY: libtorch's own member, with the caller's arguments.
            unsafe { real(a, b, c, d, e, f) }
        }
    };
}

table::for_each_member!(member);
