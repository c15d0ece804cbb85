//! Functions of the user's that patches call.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::arguments::{null, wrong};
use super::dlpack::DLManagedTensorVersioned;
use super::handle::exclusive;
use super::spec::gp_spec;
use super::{Status, guard};
use graphpatch_core::patch::action::Action;
use graphpatch_session::verdict;
use graphpatch_torch::{NativeFunction, Takes};

/// A function of the user's. `value` is the picked part of the tensor, read-only and borrowed for the call; in
/// `replacement` the function may leave a tensor that broadcasts to it, which is then written in its place (and whose
/// deleter is called when it is no longer needed), or NULL to leave the value alone. Anything but 0 is a failure, and so is
/// a C++ exception of any type, whose text becomes the patch's message. It is called on the thread that runs the model,
/// perhaps on several at once. Since 0.1.0.
pub type gp_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        value: *mut DLManagedTensorVersioned,
        replacement: *mut *mut DLManagedTensorVersioned,
    ) -> i32,
>;

/// The spec calls `callback` with `user` and the value. `user` must stay valid until the patch is removed and runs that
/// began before have ended.
///
/// Thread: one at a time. NULL: user. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `callback` and `user` as gp_callback says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_custom(
    spec: *mut gp_spec,
    callback: gp_callback,
    user: *mut c_void,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let function = callback.ok_or_else(|| null("callback"))?;
        let function = function as *const () as *mut c_void;
        let function = NativeFunction::new(function, user, Takes::DlPack);
        exclusive(spec)?.action = Action::Custom(Arc::new(function));
        Ok(())
    })
}

/// A function of the user's that takes libtorch's own tensor: `tensor` is the at::TensorImpl of the picked part, with
/// its gradient history, borrowed for the call and not to be written. In `replacement` the function may leave the
/// at::TensorImpl of a tensor that takes its place: one that may be written into the picked part where there is an
/// index; else of any shape and dtype, but those of the value where that is a plain number or was written into an
/// operand. It must stay alive until the thread's next call of a function. Anything but 0 is a failure. A plain number
/// comes and goes as a tensor without dimensions; None comes as NULL.
/// Otherwise as gp_callback. Since 0.1.0.
pub type gp_torch_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        tensor: *const c_void,
        replacement: *mut *const c_void,
    ) -> i32,
>;

/// The spec calls `callback` with `user` and the value, as gp_spec_custom, but with libtorch's own tensor, on any
/// device; gradients go through what the function computes.
///
/// Thread: one at a time. NULL: user. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `callback` and `user` as gp_torch_callback says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_custom_torch(
    spec: *mut gp_spec,
    callback: gp_torch_callback,
    user: *mut c_void,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let function = callback.ok_or_else(|| null("callback"))?;
        let function = function as *const () as *mut c_void;
        let function = NativeFunction::new(function, user, Takes::Torch);
        exclusive(spec)?.action = Action::Custom(Arc::new(function));
        Ok(())
    })
}

/// What is called once with a function's `user` when nobody can call that function any more. It may run in the middle of
/// any call of the library, on any thread, so nothing can take an exception from it: one that leaves it ends the process.
/// Since 0.1.0.
pub type gp_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Hands over the `user` of the spec's function: `release` is called with it, once and on whatever thread, when the spec
/// and all patches that were registered from it are gone and runs that began with them have ended.
/// GP_STATUS_ARGUMENT for a spec without a function, and where it was handed over already.
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_ARGUMENT. Since 0.1.0.
///
/// # Safety
///
/// `release` may be called with its `user` from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_release(spec: *mut gp_spec, release: gp_release) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let release = release.ok_or_else(|| null("release"))?;
        let spec = exclusive(spec)?;
        let function = match &spec.action {
            Action::Custom(function) => NativeFunction::of(function.as_ref()),
            _ => None,
        };
        let function = function.ok_or_else(|| wrong("spec", "calls no function"))?;
        match function.release_with(release) {
            true => Ok(()),
            false => Err(wrong("spec", "has its `user` handed over already")),
        }
    })
}

/// To be returned by a gp_callback or gp_torch_callback that failed: keeps a copy of `why` (UTF-8; what is not becomes `?`,
/// NULL says nothing) for the message of the patch that called it on this thread. Always 1.
///
/// Thread: any. NULL: says nothing. Since 0.1.0.
///
/// # Safety
///
/// `why` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_callback_fail(why: *const c_char) -> i32 {
    let _ = guard(|| {
        if !why.is_null() {
            // SAFETY: by this function's contract.
            let why = unsafe { CStr::from_ptr(why) };
            verdict::function_failed(&why.to_string_lossy());
        }
        Ok(())
    });
    1
}
