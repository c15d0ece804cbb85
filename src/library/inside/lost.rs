//! What a preloaded process knows of things that the library does not see: a program that it starts with an environment in
//! which the library is not preloaded, and a libtorch that no hook saw loading. The command tells its user of them if nothing
//! else was recorded.
//!
//! This code also runs in children of `vfork` and in signal handlers. So it makes system calls only: it allocates nothing
//! and takes no lock.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::process;
use graphpatch_loader as loader;
use graphpatch_protocol::lost::{FILE, LATE, STARTED};

/// A list of C's strings that ends with null: arguments, an environment.
pub(super) type List = *const *const c_char;

const PRELOAD: &[u8] = b"LD_PRELOAD=";

// The libc crate does not declare it.
unsafe extern "C" {
    static environ: List;
}

/// The path of the file of losses, as a C string.
pub(super) fn file(report_dir: &Path) -> CString {
    CString::new(report_dir.join(FILE).into_os_string().into_vec()).unwrap_or_default()
}

/// Writes a line if a libtorch is loaded that no hook has seen. Called when the process ends.
pub(super) extern "C" fn look_at_end() {
    if process::is_waiting()
        && let Some(process) = process::get()
        && loader::loaded_path().is_some()
    {
        write(&process.lost, &[LATE.as_bytes(), b"\n"]);
    }
}

/// Writes a line with the program that is about to be started, if the library is not preloaded in its environment.
///
/// # Safety
/// The path is a string of C, or null; the environment a list of them, or null for the process's own.
pub(super) unsafe fn look_before_start(path: *const c_char, environment: Option<List>) {
    let Some(process) = process::get() else {
        return;
    };
    // SAFETY: errno is this thread's own; the caller must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: as the caller has promised; the C library's own list is one, too.
    let (keeps, path) = unsafe {
        let list = environment.unwrap_or(environ);
        (path.is_null() || keeps_library(list), path)
    };
    if !keeps {
        // SAFETY: not null, and a string as the caller has promised.
        let path = unsafe { CStr::from_ptr(path) };
        write(&process.lost, &[STARTED.as_bytes(), path.to_bytes(), b"\n"]);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Whether the environment preloads a file that has the library's name.
///
/// # Safety
/// A list of C's strings that ends with null, or null.
unsafe fn keeps_library(mut list: List) -> bool {
    while !list.is_null() {
        // SAFETY: the list has not ended yet, so there is an entry, which is null or a string.
        let entry = unsafe { *list };
        if entry.is_null() {
            return false;
        }
        // SAFETY: as above.
        let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(value) = entry.strip_prefix(PRELOAD) {
            return value.windows(NAME.len()).any(|part| part == NAME);
        }
        // SAFETY: the end was not reached.
        list = unsafe { list.add(1) };
    }
    false
}

const NAME: &[u8] = b"libgraphpatch.so";

/// Appends one line to the file, in one system call, since several processes write to it.
fn write(file: &CStr, parts: &[&[u8]]) {
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; 3];
    for (vector, part) in vectors.iter_mut().zip(parts) {
        vector.iov_base = part.as_ptr().cast_mut().cast();
        vector.iov_len = part.len();
    }
    const FLAGS: c_int = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    let count = c_int::try_from(parts.len().min(vectors.len())).unwrap_or(0);
    // SAFETY: a C string; the parts outlive the call, which only reads them. A line that cannot be written is lost.
    unsafe {
        let descriptor = libc::open(file.as_ptr(), FLAGS | libc::O_NOFOLLOW, 0o600);
        if descriptor >= 0 {
            libc::writev(descriptor, vectors.as_ptr(), count);
            libc::close(descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments() {
        let keeps = |entries: &[&CStr]| {
            let mut list: Vec<*const c_char> = entries.iter().map(|entry| entry.as_ptr()).collect();
            list.push(std::ptr::null());
            // SAFETY: a list as C has it, whose strings are constants.
            unsafe { keeps_library(list.as_ptr()) }
        };
        assert!(keeps(&[c"A=1", c"LD_PRELOAD=/x/libgraphpatch.so:/y.so"]));
        assert!(keeps(&[c"LD_PRELOAD=/y.so /x/$LIB/libgraphpatch.so.0.1.0"]));
        assert!(!keeps(&[c"A=1"]) && !keeps(&[]) && !keeps(&[c"LD_PRELOAD=/y.so"]));
        // SAFETY: null is allowed.
        assert!(!unsafe { keeps_library(std::ptr::null()) });
    }

    #[test]
    fn lines_are_added() {
        let dir = tempfile::tempdir().expect("dir");
        let path = file(dir.path());
        write(&path, &[b"a ", b"b", b"\n"]);
        write(&path, &[b"c\n"]);
        let text = std::fs::read(dir.path().join(FILE)).expect("read");
        assert_eq!(text, b"a b\nc\n");
        write(&file(Path::new("/no/such")), &[b"x"]);
    }
}
