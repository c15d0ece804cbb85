//! Calls of a thread that are set aside, for programs with coroutines that have a stack of their own.

use super::arguments::answer;
use super::handle::{Boxed, Handle, exclusive, free, give};
use super::slots::Kind;
use super::{Status, guard};
use graphpatch_session::thread::{self, Aside};

/// The calls that were under way on a thread, set aside. Thread: that one. Since 0.1.0.
pub struct gp_aside {
    _opaque: [u8; 0],
}

impl Handle for gp_aside {
    const NAME: &'static str = "aside";
    const KIND: Kind = Kind::Aside;
    type Value = Aside;
    type Owner = Boxed;
}

/// Sets the calls aside that are under way on this thread: its runs, the scopes that are open in them, and the calls that
/// gp_run_decline told of. For a program that leaves a call in its middle, makes others on the same thread and goes back later,
/// as fibers do; without this the others would be taken for parts of the first. It calls this right before it switches to another
/// fiber, and gp_calls_take_up when it is back. `out` receives a new object, or NULL where no call is under way.
///
/// Thread: its own. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_calls_set_aside(out: *mut *mut gp_aside) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        answer(out, "out", std::ptr::null_mut())?;
        match thread::set_aside() {
            Some(aside) => give(out, Box::new(aside)),
            None => Ok(()),
        }
    })
}

/// Goes on with calls that were set aside on this thread, and frees `aside`. NULL does nothing. GP_STATUS_STATE on another
/// thread, and while other calls are under way on this one; `aside` is not freed then.
///
/// Thread: its own. NULL: fine. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_calls_take_up(aside: *mut gp_aside) -> Status {
    guard(|| {
        if aside.is_null() {
            return Ok(());
        }
        thread::take_up_again(&mut *exclusive(aside)?)?;
        free(aside);
        Ok(())
    })
}

/// Frees calls that nobody goes on with, as their fiber was destroyed: their runs end as they stand. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_aside_free(aside: *mut gp_aside) {
    free(aside);
}
