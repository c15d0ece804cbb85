//! Threads of ours in somebody else's process.

/// Starts a thread. It inherits the calling thread's name. It blocks all signals, so that it never runs a handler of the
/// program's.
///
/// # Errors
///
/// There can be no thread.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    // SAFETY: sets are valid when zero; all pointers are to locals.
    let before = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let thread = std::thread::Builder::new().spawn(body);
    // SAFETY: the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    thread.map(drop)
}
