//! What the adapter defines once: operators, scopes and roots.

use std::sync::Arc;

use super::guard::guard;
use super::lent::{array, text};
use crate::seam_generated as raw;
use graphpatch_session::{Root, Scope, family_bit, ops};

pub(super) unsafe extern "C" fn op_define(name: raw::GpStr, family: *mut u64) -> u32 {
    guard(u32::MAX, || {
        // SAFETY: the adapter lends the text for this call.
        let id = ops::define(unsafe { text(name) });
        // SAFETY: a place for the answer.
        unsafe { *family = ops::get(id).map_or(0, |op| family_bit(op.family)) };
        id
    })
}

pub(super) unsafe extern "C" fn op_exists(name: raw::GpStr) {
    // SAFETY: the adapter lends the text for this call.
    guard((), || ops::exists(unsafe { text(name) }));
}

pub(super) unsafe extern "C" fn scope_define(
    info: *const raw::GpScopeInfo,
    family: *mut u64,
) -> *mut raw::GpScope {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the adapter lends the struct and what it points to for this call.
        let scope = unsafe {
            let info = &*info;
            let inputs = array(info.inputs, info.n_inputs);
            Scope::new(
                text(info.module_path),
                text(info.absolute_path),
                text(info.class_name),
                inputs.iter().map(|input| text(*input).to_owned()).collect(),
            )
            .relative()
        };
        // SAFETY: a place for the answer.
        unsafe { *family = family_bit(scope.family()) };
        Arc::into_raw(Arc::new(scope)).cast_mut().cast()
    })
}

pub(super) unsafe extern "C" fn scope_free(scope: *mut raw::GpScope) {
    if !scope.is_null() {
        // SAFETY: the handle is `scope_define`'s, given back once.
        guard((), || drop(unsafe { Arc::from_raw(scope.cast::<Scope>()) }));
    }
}

/// Another reference to the scope behind a handle.
///
/// # Safety
///
/// `scope` came from `scope_define` and was not freed.
pub(super) unsafe fn share<T>(handle: *const T) -> Arc<T> {
    // SAFETY: by this function's contract the count is at least 1.
    unsafe {
        Arc::increment_strong_count(handle);
        Arc::from_raw(handle)
    }
}

pub(super) unsafe extern "C" fn root_define(info: *const raw::GpRootInfo) -> *mut raw::GpRoot {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the adapter lends the struct for this call; its scope is a live handle.
        let root = unsafe {
            let info = &*info;
            let parameters = array(info.parameters, info.n_parameters);
            Root::new(
                share(info.scope.cast::<Scope>().cast_const()),
                text(info.name),
                parameters.iter().map(|p| text(*p).to_owned()).collect(),
            )
        };
        Arc::into_raw(Arc::new(root)).cast_mut().cast()
    })
}

pub(super) unsafe extern "C" fn root_free(root: *mut raw::GpRoot) {
    if !root.is_null() {
        // SAFETY: the handle is `root_define`'s, given back once.
        guard((), || drop(unsafe { Arc::from_raw(root.cast::<Root>()) }));
    }
}
