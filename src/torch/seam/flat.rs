//! Flat runs, as the adapter drives them.

use std::ffi::c_void;

use super::definitions::share;
use super::guard::guard;
use super::lent::array;
use crate::seam_generated as raw;
use graphpatch_session::flat::Next;
use graphpatch_session::{Root, Wants, thread};

pub(super) extern "C" fn flat_thread(on: u32) {
    guard((), || thread::flat_thread(on != 0));
}

pub(super) unsafe extern "C" fn flat_begin(
    root: *mut raw::GpRoot,
    identities: *const *const c_void,
    n: usize,
) -> u32 {
    guard(0, || {
        // SAFETY: the handle is `root_define`'s, and alive; the array is lent for this call.
        let (root, identities) = unsafe {
            let root = share(root.cast::<Root>().cast_const());
            (root, array(identities, n))
        };
        let Some(wants) = thread::flat_begin(root) else {
            return 0;
        };
        if wants.has(Wants::PARAMETERS) {
            thread::flat_parameters(identities.iter().map(|identity| identity.addr()));
        }
        wants.bits()
    })
}

pub(super) extern "C" fn flat_next() -> u32 {
    guard(raw::GP_NEXT_OVER, || match thread::flat_next() {
        Next::GoOn | Next::Stopped(_) => raw::GP_NEXT_GO_ON,
        Next::Over => raw::GP_NEXT_OVER,
    })
}

pub(super) unsafe extern "C" fn flat_root(
    root: *mut raw::GpRoot,
    identities: *const *const c_void,
    n: usize,
) {
    guard((), || {
        // SAFETY: a live root; the array is lent for this call.
        let (root, identities) = unsafe {
            let root = share(root.cast::<Root>().cast_const());
            (root, array(identities, n))
        };
        thread::flat_root(root, identities.iter().map(|identity| identity.addr()));
    });
}

pub(super) extern "C" fn flat_now(on: u32) {
    guard((), || {
        thread::flat_now(on != 0);
    });
}

pub(super) extern "C" fn flat_end() {
    guard((), thread::flat_end);
}
