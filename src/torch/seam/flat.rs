//! Flat runs, as the adapter drives them.

use std::ffi::c_void;

use super::super::seam_generated as raw;
use super::lent::array;
use super::{frame_flags, guard, hand_over, seam_run, share};
use graphpatch_session::flat::Next;
use graphpatch_session::{Root, Run};

pub(super) unsafe extern "C" fn flat_begin(
    root: *mut raw::GpRoot,
    opened: *mut raw::GpOpened,
) -> *mut raw::GpRun {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the handle is `root_define`'s, and alive; `opened` is a place for the answer.
        unsafe {
            match Run::begin_flat(share(root.cast::<Root>().cast_const())) {
                Some((run, interest)) => hand_over(run, interest, opened),
                None => std::ptr::null_mut(),
            }
        }
    })
}

pub(super) unsafe extern "C" fn flat_next(run: *mut raw::GpRun, flags: *mut u32) -> u32 {
    guard(raw::GP_NEXT_OVER, || {
        // SAFETY: a live run on its own thread.
        let next = unsafe { seam_run(run) }.map_or(Next::Over, |run| run.run.advance());
        match next {
            Next::GoOn => raw::GP_NEXT_GO_ON,
            Next::Stopped(interest) => {
                // SAFETY: a place for the answer.
                unsafe { *flags = frame_flags(interest) };
                raw::GP_NEXT_STOPPED
            }
            Next::Over => raw::GP_NEXT_OVER,
        }
    })
}

pub(super) unsafe extern "C" fn flat_root(
    run: *mut raw::GpRun,
    root: *mut raw::GpRoot,
    identities: *const *const c_void,
    n: usize,
) -> u32 {
    guard(0, || {
        // SAFETY: a live run on its own thread and a live root; the array is lent for this call.
        let (run, root, identities) = unsafe {
            let root = share(root.cast::<Root>().cast_const());
            (seam_run(run), root, array(identities, n))
        };
        run.map_or(0, |run| {
            let identities = identities.iter().map(|identity| identity.addr());
            frame_flags(run.run.set_root(root, identities))
        })
    })
}
