//! Tensors across the C ABI: DLPack's versioned managed tensor, whose layout is DLPack's own.

use std::ffi::c_void;
use std::sync::Arc;

use graphpatch_apply::{View, gather};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::layout;
use graphpatch_core::tensor::{Dtype, HostTensor};

#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    /// 1 is the CPU.
    kind: i32,
    index: i32,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct Type {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    rank: i32,
    dtype: Type,
    shape: *mut i64,
    /// NULL: row-major.
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensorVersioned` of DLPack 1.
#[repr(C)]
pub struct DLManagedTensorVersioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    flags: u64,
    tensor: Tensor,
}

/// A copy of the caller's tensor. With `take` its deleter is called, whether or not that went well.
///
/// # Safety
///
/// `tensor` is NULL or a valid managed tensor; with `take` the caller does not use it any more.
///
/// # Errors
///
/// [`Error::Argument`] for NULL, [`Error::Refused`] for a device, dtype or version that is not taken.
pub(super) unsafe fn read(
    tensor: *mut DLManagedTensorVersioned,
    take: bool,
    name: &'static str,
) -> Result<HostTensor> {
    // SAFETY: by this function's contract.
    let managed = unsafe { tensor.as_ref() }.ok_or_else(|| super::arguments::null(name))?;
    let copy = copy(managed);
    if take && let Some(deleter) = managed.deleter {
        // SAFETY: the caller hands the tensor over; this is its end.
        unsafe { deleter(tensor) };
    }
    copy
}

fn copy(managed: &DLManagedTensorVersioned) -> Result<HostTensor> {
    let refuse = |why: String| Err(Error::Refused(format!("a DLPack tensor {why}")));
    let tensor = &managed.tensor;
    if managed.major != 1 {
        return refuse(format!("of version {}, expected 1", managed.major));
    }
    if tensor.device.kind != 1 {
        return refuse(format!(
            "on device type {}: only CPU memory is taken; give libtorch's own tensor to gp_value_torch",
            tensor.device.kind
        ));
    }
    let Type { code, bits, lanes } = tensor.dtype;
    let found = Dtype::from_dlpack(code, bits).filter(|_| lanes == 1);
    let Some(dtype) = found else {
        return refuse(format!("of dtype code {code}, {bits} bits, {lanes} lanes"));
    };
    let Ok(rank) = usize::try_from(tensor.rank) else {
        return refuse(format!("with {} dimensions", tensor.rank));
    };
    if rank > 0 && tensor.shape.is_null() {
        return refuse("without a shape".into());
    }
    // SAFETY: DLPack: `shape`, and `strides` unless NULL, have `rank` numbers.
    let shape = unsafe { slice(tensor.shape, rank) };
    let dense = layout::dense_strides(shape);
    let strides = match tensor.strides.is_null() {
        true => &dense,
        // SAFETY: as above.
        false => unsafe { slice(tensor.strides, rank) },
    };
    if tensor.data.is_null() && !shape.contains(&0) {
        return refuse("without data".into());
    }
    let data = tensor
        .data
        .cast::<u8>()
        .wrapping_add(tensor.byte_offset as usize);
    // SAFETY: DLPack: these sizes and strides reach valid elements of this dtype; they are only read here.
    let view = unsafe { View::new(data, shape, strides, dtype) };
    gather::gather(&view)
}

/// # Safety
///
/// `data` points to `n` numbers, or `n` is 0.
unsafe fn slice<'a>(data: *const i64, n: usize) -> &'a [i64] {
    if n == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(data, n) }
}

/// What a tensor that we handed over keeps alive.
struct Owner {
    tensor: Arc<HostTensor>,
    shape: Vec<i64>,
}

/// A managed tensor that shares the memory of ours, read-only; its deleter ends the sharing.
pub(super) fn give(tensor: Arc<HostTensor>) -> *mut DLManagedTensorVersioned {
    let (code, bits) = tensor.dtype().dlpack();
    let mut owner = Box::new(Owner {
        shape: tensor.shape().to_vec(),
        tensor,
    });
    let managed = DLManagedTensorVersioned {
        major: 1,
        minor: 0,
        tensor: Tensor {
            data: owner.tensor.bytes().as_ptr().cast_mut().cast(),
            device: Device { kind: 1, index: 0 },
            rank: owner.shape.len() as i32,
            dtype: Type {
                code,
                bits,
                lanes: 1,
            },
            shape: owner.shape.as_mut_ptr(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        },
        context: Box::into_raw(owner).cast(),
        deleter: Some(release),
        flags: 1,
    };
    Box::into_raw(Box::new(managed))
}

unsafe extern "C" fn release(tensor: *mut DLManagedTensorVersioned) {
    if !tensor.is_null() {
        // SAFETY: `give` made both, and the consumer calls the deleter once.
        unsafe {
            let managed = Box::from_raw(tensor);
            drop(Box::from_raw(managed.context.cast::<Owner>()));
        }
    }
}

/// Ends a tensor that nobody has seen.
///
/// # Safety
///
/// `tensor` came from [`give`].
pub(super) unsafe fn take_back(tensor: *mut DLManagedTensorVersioned) {
    // SAFETY: by this function's contract.
    unsafe { release(tensor) };
}
