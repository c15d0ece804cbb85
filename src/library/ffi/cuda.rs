//! CUDA: what there is, getting ready before a capture, and patches that a captured graph can be told about.

use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::wrong;
use super::handle::{exclusive, reference, share};
use super::session::gp_session;
use super::spec::gp_spec;
use super::value::gp_value;
use super::{Status, guard, string};
use graphpatch_core::patch::action::Action;
use graphpatch_cuda as cuda;

/// What the library can do with this machine's CUDA: a line for the driver and one for each device, or one line that
/// says why CUDA values are patched by libtorch's own operations instead of our kernels (no driver, an old one, no
/// card, a card below compute capability 7.5). Loads the driver if need be; makes no context. `out` receives new text;
/// free it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_cuda_status(out: *mut *mut c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { string::give(out, "out", &cuda::status().join("\n")) })
}

/// Loads the kernels on CUDA device `device` and uploads the values and index tensors of the session's patches there.
/// Otherwise that happens when a session attaches, a patch is registered, or a patch first meets a value on the device;
/// but nothing can be loaded or uploaded while a CUDA graph is captured. GP_STATUS_STATE when the device cannot be
/// used; gp_last_error() says why.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_cuda_prepare(session: *const gp_session, device: u32) -> Status {
    guard(|| reference(session)?.prepare_device(device))
}

/// Whether the spec's patch can be switched and changed in CUDA graphs that were captured with it: its switch and its
/// value are then read from device memory each time. gp_patch_enable and gp_patch_remove switch it, gp_patch_set_value
/// changes it. A replay that is under way meanwhile may see the old or the new state.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_live(spec: *mut gp_spec, live: bool) -> Status {
    guard(|| {
        exclusive(spec)?.live = live;
        Ok(())
    })
}

/// Whether what the spec's probe or record keeps of CUDA values stays on the device: gp_kept_tensor then gives tensors
/// there, without a copy. Otherwise a value is copied on the device when it appears, and to CPU memory when it is asked
/// for. In a captured CUDA graph only a kept value that stays shows what the last replay wrote. GP_STATUS_ARGUMENT for
/// a spec that keeps nothing.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_keep_on_device(spec: *mut gp_spec, stay: bool) -> Status {
    guard(|| {
        let mut spec = exclusive(spec)?;
        let Action::Keep(kept) = &spec.action else {
            return Err(wrong("spec", "is no probe or record"));
        };
        spec.action = Action::Keep(Arc::new(kept.staying(stay)));
        Ok(())
    })
}

/// Gives an add or replace another value: for runs that begin from now on, and, for a live patch (gp_spec_live), for
/// every replay of a CUDA graph that was captured with it. A live patch's number must stay a number, its tensor a
/// tensor of the same shape and dtype. GP_STATUS_STATE when there is no such patch, GP_STATUS_REFUSED when it takes no
/// such value; it keeps its old one then.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_STATE, GP_STATUS_REFUSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_patch_set_value(
    session: *const gp_session,
    id: u64,
    value: *const gp_value,
) -> Status {
    guard(|| {
        let value = reference(value)?.clone();
        share(session)?.set_value(id, value)
    })
}
