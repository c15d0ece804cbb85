//! The fork handlers of a process that uses the library: every lock is free in a child (see `graphpatch_locks`).
//!
//! They are installed by the first call of the C ABI, or when a preloaded process attaches. `vfork` and `posix_spawn` run
//! no such handlers. They need none: none of our code that takes a lock runs in their children.

use std::sync::atomic::{AtomicBool, Ordering};

use graphpatch_locks::gate;

/// Whether the handlers are installed. The first caller of [`install`] sets it.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the handlers, if that was not done yet.
#[inline]
pub fn install() {
    if !INSTALLED.load(Ordering::Relaxed) {
        install_once();
    }
}

#[cold]
fn install_once() {
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // SAFETY: functions of this library; the C library forgets them when it unloads the library.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    }
}

unsafe extern "C" fn before() {
    gate::before_fork();
}

unsafe extern "C" fn in_parent() {
    gate::in_parent();
}

unsafe extern "C" fn in_child() {
    let free = gate::in_child();
    crate::live::forget_in_child();
    if !free {
        graphpatch_session::disable_in_child();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    match free {
        true => crate::inside::begin_anew(),
        false => crate::inside::give_up(),
    }
}
