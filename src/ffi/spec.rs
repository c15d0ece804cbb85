//! gp_spec: a patch before it is registered, for what text cannot say.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::dlpack::{self, DLManagedTensorVersioned};
use super::guard::{answer, reference, text};
use super::session::gp_session;
use super::value::gp_value;
use super::{Status, guard};
use crate::error::{Error, Result};
use crate::patch::action::{Action, Callback, NewPatch, Pick};
use crate::patch::kept::Kept;
use crate::path::{Item, Slice};

/// A patch to be: a path, an index and what to do. One thread at a time. Since 0.1.0.
pub struct gp_spec(NewPatch);

/// A function of the user's. `value` is the picked part of the tensor, read-only and borrowed for the call; in
/// `replacement` the function may leave a tensor that broadcasts to it, which is then written in its place (and whose
/// deleter is called when it is needed no more), or NULL to leave the value alone. Anything but 0 is a failure. It is
/// called on the thread that runs the model, perhaps on several at once, and must not throw. Since 0.1.0.
pub type gp_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        value: *mut DLManagedTensorVersioned,
        replacement: *mut *mut DLManagedTensorVersioned,
    ) -> i32,
>;

/// The spec behind a pointer, to change it.
///
/// # Safety
///
/// `spec` is NULL or a live spec that nobody else uses meanwhile.
pub(super) unsafe fn change<'a>(spec: *mut gp_spec) -> Result<&'a mut NewPatch> {
    // SAFETY: by this function's contract.
    let spec = unsafe { spec.as_mut() };
    spec.map(|spec| &mut spec.0)
        .ok_or_else(|| super::guard::null("spec"))
}

/// A spec that zeroes the whole value at `path`. `out` receives a new spec; free it with gp_spec_free.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_new(path: *const c_char, out: *mut *mut gp_spec) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        let path = unsafe { text(path, "path") }?.parse()?;
        let spec = Box::into_raw(Box::new(gp_spec(NewPatch::zero(path))));
        // SAFETY: by this function's contract.
        unsafe { answer(out, "out", spec) }.inspect_err(|_| {
            // SAFETY: nobody has seen the pointer.
            drop(unsafe { Box::from_raw(spec) });
        })
    })
}

/// Frees a spec; patches that were registered from it stay. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `spec` came from gp_spec_new and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_free(spec: *mut gp_spec) {
    if !spec.is_null() {
        // SAFETY: by this function's contract.
        drop(unsafe { Box::from_raw(spec) });
    }
}

/// Appends to the index what `slice` says ("[3, ::2]").
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live; `slice` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_slice(spec: *mut gp_spec, slice: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let slice: Slice = text(slice, "slice")?.parse()?;
        change(spec)?
            .picks
            .extend(slice.0.into_iter().map(Pick::Item));
        Ok(())
    })
}

/// Appends an integer to the index; negative ones count from the end.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_index(spec: *mut gp_spec, index: i64) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.picks.push(Pick::Item(Item::Index(index)));
        Ok(())
    })
}

/// Appends a tensor to the index: int32 or int64 indices, which broadcast against the other index tensors, or a bool
/// mask (uint8 is a mask too, as in libtorch). As gp_value_dlpack says of `tensor` and `take`. GP_STATUS_REFUSED for
/// another dtype.
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live; `tensor` is NULL or a valid managed tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_index_tensor(
    spec: *mut gp_spec,
    tensor: *mut DLManagedTensorVersioned,
    take: bool,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let tensor = Arc::new(dlpack::read(tensor, take, "tensor")?);
        change(spec)?.picks.push(Pick::tensor(tensor)?);
        Ok(())
    })
}

/// The spec zeroes.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_zero(spec: *mut gp_spec) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.action = Action::Zero;
        Ok(())
    })
}

/// The spec adds `value`.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` and `value` are NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_add(spec: *mut gp_spec, value: *const gp_value) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.action = Action::Add(reference(value, "value")?.0.clone());
        Ok(())
    })
}

/// The spec writes `value`.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` and `value` are NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_replace(spec: *mut gp_spec, value: *const gp_value) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.action = Action::Replace(reference(value, "value")?.0.clone());
        Ok(())
    })
}

/// The spec keeps a copy of the last value. It takes no index.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_probe(spec: *mut gp_spec) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.action = Action::Keep(Arc::new(Kept::last()));
        Ok(())
    })
}

/// The spec keeps a copy of every value, in order; of the first `limit` ones, if that is not 0. It takes no index.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_record(spec: *mut gp_spec, limit: u64) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let limit = (limit != 0).then_some(limit);
        change(spec)?.action = Action::Keep(Arc::new(Kept::all(limit)));
        Ok(())
    })
}

/// The spec calls `callback` with `user` and the value. `user` must stay valid until the patch is removed and runs that
/// began before have ended.
///
/// Thread: one at a time. NULL: user. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live; `callback` and `user` as gp_callback says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_custom(
    spec: *mut gp_spec,
    callback: gp_callback,
    user: *mut c_void,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let function = callback.ok_or_else(|| super::guard::null("callback"))?;
        change(spec)?.action = Action::Custom(Callback {
            function: (function as *const ()).expose_provenance(),
            user: user.expose_provenance(),
            torch: false,
        });
        Ok(())
    })
}

/// A function of the user's that takes libtorch's own tensor: `tensor` is the at::TensorImpl of the picked part, with
/// its gradient history, borrowed for the call and not to be written. In `replacement` the function may leave the
/// at::TensorImpl of a tensor that takes its place (the same shape and dtype where there is no index; one that may be
/// written into the picked part where there is); it must stay alive until the thread's next call of a function.
/// Anything but 0 is a failure. A plain number comes and goes as a tensor without dimensions; None comes as NULL.
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
/// `spec` is NULL or live; `callback` and `user` as gp_torch_callback says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_custom_torch(
    spec: *mut gp_spec,
    callback: gp_torch_callback,
    user: *mut c_void,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let function = callback.ok_or_else(|| super::guard::null("callback"))?;
        change(spec)?.action = Action::Custom(Callback {
            function: (function as *const ()).expose_provenance(),
            user: user.expose_provenance(),
            torch: true,
        });
        Ok(())
    })
}

/// The spec holds for these runs of its root only, counted from 0: "3", "2..", "0..4" (without 4).
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live; `runs` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_runs(spec: *mut gp_spec, runs: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.runs = text(runs, "runs")?.parse()?;
        Ok(())
    })
}

/// Whether the spec holds only for runs on the thread that registers it.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_this_thread(spec: *mut gp_spec, only: bool) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        change(spec)?.this_thread = only;
        Ok(())
    })
}

/// Registers a patch from the spec, which stays the caller's and may be registered again. As gp_patch_add otherwise.
/// GP_STATUS_ARGUMENT for a probe or record with an index.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `session` and `spec` are NULL or live; `id` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_register(
    session: *const gp_session,
    spec: *const gp_spec,
    id: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = reference(session, "session")?;
        let patch = reference(spec, "spec")?.0.fresh();
        if matches!(patch.action, Action::Keep(_)) && !patch.picks.is_empty() {
            return Err(Error::Argument {
                name: "spec",
                why: "is a probe or record with an index; they keep whole values".into(),
            });
        }
        answer(id, "id", 0)?;
        answer(id, "id", session.0.add(patch)?)
    })
}
