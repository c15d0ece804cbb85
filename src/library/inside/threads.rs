//! `pthread_create` of a preloaded process: where operations outside of runs are wanted, the crate `graphpatch_torch`
//! learns of each thread of the program before it begins. It is not told of threads that libtorch and its helper
//! libraries start for themselves.

use std::ffi::{CStr, c_int, c_void};
use std::path::Path;

use super::table;
use graphpatch_torch as torch;

type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Start,
    *mut c_void,
) -> c_int;

/// What a new thread is to do.
struct Begin {
    start: Start,
    argument: *mut c_void,
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let real = table::THREAD.get();
    if real.is_null() {
        return libc::EAGAIN;
    }
    // SAFETY: the address is that of libc's function, which has this signature.
    let create = unsafe { std::mem::transmute::<*mut c_void, Create>(real) };
    // SAFETY: the start routine's argument is what its library gives it.
    if !torch::is_flat() || unsafe { is_helper(start, argument) } {
        // SAFETY: the caller's own arguments.
        return unsafe { create(thread, attributes, start, argument) };
    }
    let begin = Box::into_raw(Box::new(Begin { start, argument }));
    // SAFETY: as above, with a start routine that takes the box over.
    let answer = unsafe { create(thread, attributes, begin_thread, begin.cast()) };
    if answer != 0 {
        // SAFETY: no thread was made that could have taken it.
        drop(unsafe { Box::from_raw(begin) });
    }
    answer
}

/// Runs the program's own start routine. No value with a destructor may be alive in this frame by then: the thread may be
/// cancelled, or leave by `pthread_exit`, and both unwind this frame.
unsafe extern "C-unwind" fn begin_thread(begin: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` above made the box for this thread alone.
    let Begin { start, argument } = *unsafe { Box::from_raw(begin.cast::<Begin>()) };
    let _ = std::panic::catch_unwind(torch::flat_thread);
    // SAFETY: the program's own routine and argument.
    unsafe { start(argument) }
}

/// Whether libtorch, or a library that works for it, starts the thread.
///
/// # Safety
///
/// A start routine of the C++ library comes with the argument that this library gives it.
unsafe fn is_helper(start: Start, argument: *mut c_void) -> bool {
    let starter = object_of(start as *const c_void);
    // The start routine of a std::thread lies in the C++ library. Its argument is an object with virtual functions, whose
    // table lies in the library that made the thread.
    let through = starter.is_some_and(|name| name.to_bytes().windows(9).any(|w| w == b"libstdc++"));
    let maker = match through && !argument.is_null() {
        // SAFETY: by this function's contract a live polymorphic object, whose first word is its table's address.
        true => object_of(unsafe { *argument.cast::<*const c_void>() }),
        false => starter,
    };
    maker.is_some_and(|name| is_helpers(&name.to_string_lossy()))
}

fn is_helpers(object: &str) -> bool {
    const HELPERS: [&str; 13] = [
        "libgraphpatch",
        "libtorch",
        "libc10",
        "libgomp",
        "libiomp",
        "libomp",
        "libmkl",
        "libtbb",
        "libopenblas",
        "libcuda",
        "libcudart",
        "libnccl",
        "libcupti",
    ];
    let name = Path::new(object).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    HELPERS.iter().any(|helper| name.starts_with(helper))
}

/// The file name of the loaded object that holds an address. It is valid while the object stays loaded.
fn object_of(address: *const c_void) -> Option<&'static CStr> {
    // SAFETY: an all-zero Dl_info is a valid value of that plain C struct.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr takes any address; `info` is writable.
    let found = unsafe { libc::dladdr(address, &mut info) } != 0 && !info.dli_fname.is_null();
    // SAFETY: dladdr succeeded; the code that starts a thread keeps its object loaded.
    found.then(|| unsafe { CStr::from_ptr(info.dli_fname) })
}
