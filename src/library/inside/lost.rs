//! What a preloaded process knows of programs that it loses: one that it starts with another environment, in which the library is
//! not preloaded, and a libtorch that it did not see come. The command tells of them where nothing else was seen.
//!
//! A child of `vfork` and a program in a signal handler come here too: no allocation, no lock, only system calls.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::process;
use graphpatch_loader as loader;
use graphpatch_protocol::lost::{FILE, LATE, STARTED};

/// A list of C's strings that ends with null: arguments, an environment.
pub(super) type List = *const *const c_char;

const PRELOAD: &[u8] = b"LD_PRELOAD=";

// Not in the libc crate.
unsafe extern "C" {
    static environ: List;
}

/// Where losses are written down, by a name that the C library takes.
pub(super) fn file(report_dir: &Path) -> CString {
    CString::new(report_dir.join(FILE).into_os_string().into_vec()).unwrap_or_default()
}

/// Writes down that a libtorch came where no hook saw it, if so. For the end of a process.
pub(super) extern "C" fn look_at_end() {
    if process::is_waiting()
        && let Some(process) = process::get()
        && loader::loaded_path().is_some()
    {
        write(&process.lost, &[LATE.as_bytes(), b"\n"]);
    }
}

/// The same for a program that is about to be started, if the library is not in its environment.
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

/// Whether something is preloaded that is called as the library is.
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

/// One line, at the end of the file, in one step.
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
    // SAFETY: a C string; the parts outlive the call, which only reads them. What cannot be written is not told.
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
