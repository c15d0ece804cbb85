//! The adapter's calls that begin and end runs and scopes.

use std::ffi::c_void;

use super::definitions::share;
use super::guard::guard;
use super::lent::{array, frames};
use crate::seam_generated as raw;
use graphpatch_session::{Root, Scope, Wants, thread};

pub(super) extern "C" fn this_thread() -> *mut raw::GpThread {
    // Its fields are cells, so the adapter may write them, too.
    thread::view().cast_mut().cast()
}

pub(super) unsafe extern "C" fn call_begin(root: *mut raw::GpRoot) -> u32 {
    guard(0, || {
        // SAFETY: the handle is `root_define`'s, and alive.
        let root = unsafe { share(root.cast::<Root>().cast_const()) };
        thread::begin_call(root).map_or(0, Wants::bits)
    })
}

pub(super) extern "C" fn call_end() {
    guard((), thread::end_call);
}

pub(super) unsafe extern "C" fn root_enter(scope: *mut raw::GpScope) -> u32 {
    guard(0, || {
        // SAFETY: a live scope.
        let scope = unsafe { share(scope.cast::<Scope>().cast_const()) };
        thread::enter_root(scope).bits()
    })
}

pub(super) unsafe extern "C" fn run_parameters(identities: *const *const c_void, n: usize) {
    guard((), || {
        // SAFETY: the array is lent for this call.
        let identities = unsafe { array(identities, n) };
        thread::with_run(|run| run.set_parameters(identities.iter().map(|i| i.addr())));
    });
}

pub(super) extern "C" fn run_end() {
    guard((), || drop(thread::end_run()));
}

pub(super) extern "C" fn function_begin() {
    guard((), thread::begin_function);
}

pub(super) extern "C" fn function_end() {
    guard((), thread::end_function);
}

pub(super) unsafe extern "C" fn scope_enter(scope: *mut raw::GpScope) -> u32 {
    guard(0, || {
        // SAFETY: a live scope.
        let scope = unsafe { share(scope.cast::<Scope>().cast_const()) };
        thread::enter(scope).map_or(0, Wants::bits)
    })
}

pub(super) extern "C" fn scope_leave() {
    guard((), thread::leave);
}

pub(super) unsafe extern "C" fn scope_source(source: *const raw::GpFrame, n: usize) {
    guard((), || {
        // SAFETY: frames lent for this call.
        thread::called_from(unsafe { frames(source, n) });
    });
}
