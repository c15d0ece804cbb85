//! The C library's own functions, which our hooks call.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

const DLSYM: &CStr = c"dlsym";

/// libc's own `dlsym`, by which the others are looked up; null: not looked up yet.
static OWN_DLSYM: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// The function of libc that a hook stands before, looked up once.
pub(super) struct Real {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Real {
    pub(super) const fn new(name: &'static CStr) -> Real {
        Real {
            name,
            address: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The next definition after ours, or null.
    pub(super) fn get(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        let found = match self.name == DLSYM {
            true => real_dlsym(),
            false => next(self.name),
        };
        self.address.store(found, Ordering::Release);
        found
    }
}

/// `dlsym` itself: glibc knows it under the version of the platform's first release, and since 2.34 under a second.
fn real_dlsym() -> *mut c_void {
    let known = OWN_DLSYM.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    const VERSIONS: [&CStr; 3] = [c"GLIBC_2.34", c"GLIBC_2.2.5", c"GLIBC_2.17"];
    let found = VERSIONS
        .iter()
        // SAFETY: dlvsym is called from this object with valid strings; RTLD_NEXT then means the objects after it.
        .map(|version| unsafe { libc::dlvsym(libc::RTLD_NEXT, DLSYM.as_ptr(), version.as_ptr()) })
        .find(|address| !address.is_null())
        .unwrap_or(std::ptr::null_mut());
    OWN_DLSYM.store(found, Ordering::Release);
    found
}

fn next(name: &CStr) -> *mut c_void {
    let dlsym = real_dlsym();
    if dlsym.is_null() {
        return dlsym;
    }
    // SAFETY: the address is that of libc's dlsym, which has this signature.
    let dlsym = unsafe { std::mem::transmute::<*mut c_void, Dlsym>(dlsym) };
    // SAFETY: called from this object, so RTLD_NEXT means the objects after it; the name is a valid string.
    unsafe { dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}
