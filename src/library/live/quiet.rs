//! Threads of ours in somebody else's process. They inherit the calling thread's name. They block all signals, so that they
//! never run a handler of the program's.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

/// Starts a thread.
///
/// # Errors
///
/// There can be no thread.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    masked(|| std::thread::Builder::new().spawn(body)).map(drop)
}

/// What a thread begins with. It may be ended by `pthread_exit` inside of a function that it calls.
pub type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Starts a thread that may end by `pthread_exit`, as Python ends threads that ask for its lock when it is finished itself. A
/// thread of the standard library's ends the process then. False if there can be none; `argument` is then the caller's.
pub fn spawn_that_may_exit(start: Start, argument: *mut c_void) -> bool {
    // SAFETY: the two types differ in whether the function may be left by unwinding, which the C library expects of every one.
    let start =
        unsafe { std::mem::transmute::<Start, extern "C" fn(*mut c_void) -> *mut c_void>(start) };
    masked(|| {
        // A number with glibc, a pointer with musl.
        let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
        // SAFETY: the thread's number is a local, which is set where the call succeeds; the start routine takes the argument.
        unsafe {
            let answer: c_int =
                libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), start, argument);
            answer == 0 && libc::pthread_detach(thread.assume_init()) == 0
        }
    })
}

/// Does something with all signals blocked.
fn masked<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: sets are valid when zero; all pointers are to locals.
    let before = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let done = body();
    // SAFETY: the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    done
}
