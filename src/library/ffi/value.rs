//! gp_value: what an add or replace adds or writes.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::arguments::{answer, null, text};
use super::dlpack::{self, DLManagedTensorVersioned};
use super::handle::{Boxed, Handle, free, give, reference};
use super::slots::Kind;
use super::{Status, guard};
use graphpatch_core::error::Error;
use graphpatch_core::patch::action::Operand;
use graphpatch_core::patch::{Number, Value};

/// A number or a tensor. Any number of specs may use one; it may be freed once they have it. Any thread. Since 0.1.0.
pub struct gp_value {
    _opaque: [u8; 0],
}

impl Handle for gp_value {
    const NAME: &'static str = "value";
    const KIND: Kind = Kind::Value;
    type Value = Operand;
    type Owner = Boxed;
}

/// A value from text: a number as in a patch's text ("3", "-0.5", "true", "1+2j"), or a tensor in a file, which is read now:
/// "@FILE.npy", "@FILE.safetensors#KEY", "@FILE.gguf#NAME", "@FILE.pt" or "@FILE.pt#KEY". `out` receives a new value; free it with gp_value_free.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
///
/// # Safety
///
/// `value` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_text(value: *const c_char, out: *mut *mut gp_value) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let value: Value = text(value, "value")?.parse()?;
        give(out, Box::new(Operand::from_value(&value)?))
    })
}

/// The integer `value`. `out` receives a new value; free it with gp_value_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_int(value: i64, out: *mut *mut gp_value) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { give(out, Box::new(Operand::Number(Number::Int(value)))) })
}

/// The real number `value`. `out` receives a new value; free it with gp_value_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_float(value: f64, out: *mut *mut gp_value) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { give(out, Box::new(Operand::Number(Number::Float(value)))) })
}

/// A copy of a tensor in CPU memory, of any strides. With `take` the tensor is handed over, and its deleter is called
/// before this returns, also on error; without, it is borrowed for the call. `out` receives a new value; free it with
/// gp_value_free. GP_STATUS_REFUSED for a device, dtype or DLPack version that is not taken.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `tensor` is NULL or a valid managed tensor; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_dlpack(
    tensor: *mut DLManagedTensorVersioned,
    take: bool,
    out: *mut *mut gp_value,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let tensor = dlpack::read(tensor, take, "tensor")?;
        give(out, Box::new(Operand::Host(Arc::new(tensor))))
    })
}

/// libtorch's own tensor, on any device: the at::TensorImpl* that at::Tensor::unsafeGetTensorImpl() gives. The value
/// holds a reference of its own; gradients flow to the tensor if it requires them. `out` receives a new value; free it
/// with gp_value_free. GP_STATUS_TORCH before any session was attached.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `tensor_impl` is NULL or a live at::TensorImpl of this process's libtorch; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_torch(
    tensor_impl: *const c_void,
    out: *mut *mut gp_value,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let tensor = graphpatch_torch::foreign(tensor_impl)?;
        give(out, Box::new(Operand::Foreign(tensor)))
    })
}

/// The tensor of a value that gp_value_text has read from a file or gp_value_dlpack has copied. `out` receives a new, read-only,
/// row-major tensor in CPU memory, which stays valid when the value is freed; call its deleter to free it. GP_STATUS_REFUSED
/// for a number, and for a tensor of libtorch's own, which its owner has.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_value_tensor(
    value: *const gp_value,
    out: *mut *mut DLManagedTensorVersioned,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        if out.is_null() {
            return Err(null("out"));
        }
        let host = match &*reference(value)? {
            Operand::Host(host) => Arc::clone(host),
            Operand::Number(_) => return Err(refused("a number is no tensor")),
            Operand::Foreign(_) => return Err(refused("libtorch's own tensor is not copied")),
        };
        let tensor = dlpack::give(host);
        answer(out, "out", tensor).inspect_err(|_| dlpack::take_back(tensor))
    })
}

fn refused(why: &str) -> Error {
    Error::Refused(why.to_owned())
}

/// Frees a value. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_value_free(value: *mut gp_value) {
    free(value);
}
