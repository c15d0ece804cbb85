//! gp_spec: a patch before it is registered, for what text cannot say.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::dlpack::{self, DLManagedTensorVersioned};
use super::guard::{answer, reference, text};
use super::session::gp_session;
use super::value::gp_value;
use super::{Status, guard};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::action::{Action, Callback, Life, NewPatch, Pick};
use graphpatch_core::patch::kept::Kept;
use graphpatch_core::path::{Item, Slice};
use graphpatch_session::verdict;

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
        // What it holds may be the user's, and runs code of theirs when it goes.
        guard(|| {
            // SAFETY: by this function's contract.
            drop(unsafe { Box::from_raw(spec) });
            Ok(())
        });
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
            life: None,
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
            life: None,
        });
        Ok(())
    })
}

/// What is called once with a function's `user` when nobody can call that function any more. Since 0.1.0.
pub type gp_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A `user` that is handed back when the last patch, spec and run that know it are gone.
struct Owned {
    release: unsafe extern "C" fn(user: *mut c_void),
    user: usize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: both came together in gp_spec_release, and this is the one call.
        unsafe { (self.release)(std::ptr::with_exposed_provenance_mut(self.user)) };
    }
}

/// Hands over the `user` of the spec's function: `release` is called with it, once and on whatever thread, when the spec
/// and all patches that were registered from it are gone and runs that began with them have ended. It must not throw.
/// GP_STATUS_ARGUMENT for a spec without a function, and where it was handed over already.
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_ARGUMENT. Since 0.1.0.
///
/// # Safety
///
/// `spec` is NULL or live; `release` may be called with its `user` from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_release(spec: *mut gp_spec, release: gp_release) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let release = release.ok_or_else(|| super::guard::null("release"))?;
        match &mut change(spec)?.action {
            Action::Custom(callback) if callback.life.is_none() => {
                let user = callback.user;
                callback.life = Some(Arc::new(Life(Box::new(Owned { release, user }))));
                Ok(())
            }
            Action::Custom(_) => Err(refused("spec", "has its `user` handed over already")),
            _ => Err(refused("spec", "calls no function")),
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

fn refused(name: &'static str, why: &str) -> Error {
    let why = why.into();
    Error::Argument { name, why }
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

/// A patch from the spec, if it can be one.
fn patch_from(spec: &gp_spec) -> Result<NewPatch> {
    let patch = spec.0.fresh();
    if matches!(patch.action, Action::Keep(_)) && !patch.picks.is_empty() {
        let why = "is a probe or record with an index; they keep whole values";
        return Err(refused("spec", why));
    }
    Ok(patch)
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
        let patch = patch_from(reference(spec, "spec")?)?;
        answer(id, "id", 0)?;
        answer(id, "id", session.0.add(patch)?)
    })
}

/// Registers a patch from each of the `n` specs, in order and all at once: a run begins with all of them or with none. `ids`
/// receives `n` numbers. On error none is registered; GP_STATUS_PATH names every path that is no leaf. As gp_patch_register
/// otherwise.
///
/// Thread: any. NULL: refused, but for specs and ids where n is 0. Errors: GP_STATUS_ARGUMENT, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `session` is NULL or live; `specs` points to `n` pointers, each NULL or to a live spec; `ids` is NULL or has place
/// for `n` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_patch_register_all(
    session: *const gp_session,
    specs: *const *const gp_spec,
    n: usize,
    ids: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = reference(session, "session")?;
        if n == 0 {
            return Ok(());
        }
        if specs.is_null() || ids.is_null() {
            return Err(super::guard::null(if ids.is_null() {
                "ids"
            } else {
                "specs"
            }));
        }
        let patches = (0..n).map(|at| patch_from(reference(*specs.add(at), "specs")?));
        let patches: Vec<NewPatch> = patches.collect::<Result<_>>()?;
        for (at, id) in session.0.add_all(patches)?.into_iter().enumerate() {
            ids.add(at).write(id);
        }
        Ok(())
    })
}
