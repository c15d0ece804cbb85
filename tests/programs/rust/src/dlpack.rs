//! DLPack 1's managed tensor, in which tensors cross the C ABI. The layout is DLPack's, which fixes it for all languages.

use std::ffi::c_void;
use std::ptr::null_mut;

use tch::{Kind, Tensor};

const CPU: i32 = 1;
const FLOAT: u8 = 2;

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Dtype {
    code: u8,
    bits: u8,
    lanes: u16,
}

const FLOAT32: Dtype = Dtype {
    code: FLOAT,
    bits: 32,
    lanes: 1,
};

#[repr(C)]
pub struct DLManagedTensorVersioned {
    major: u32,
    minor: u32,
    manager_ctx: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    flags: u64,
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    dtype: Dtype,
    shape: *mut i64,
    /// In elements; NULL: row-major.
    strides: *mut i64,
    byte_offset: u64,
}

/// Lends numbers to one call that does not write them. The tensor is only borrowed, so it has no deleter.
pub fn lend<T>(
    data: &[f32],
    shape: &[i64],
    call: impl FnOnce(*mut DLManagedTensorVersioned) -> T,
) -> T {
    assert_eq!(data.len() as i64, shape.iter().product::<i64>());
    let mut lent = DLManagedTensorVersioned {
        major: 1,
        minor: 0,
        manager_ctx: null_mut(),
        deleter: None,
        flags: 0,
        data: data.as_ptr().cast_mut().cast(),
        device_type: CPU,
        device_id: 0,
        ndim: shape.len() as i32,
        dtype: FLOAT32,
        shape: shape.as_ptr().cast_mut(),
        strides: null_mut(),
        byte_offset: 0,
    };
    call(&mut lent)
}

/// A tensor that a call handed over.
pub struct Owned(*mut DLManagedTensorVersioned);

impl Owned {
    /// # Safety
    ///
    /// `managed` was handed over: nobody else calls its deleter.
    pub unsafe fn new(managed: *mut DLManagedTensorVersioned) -> Self {
        Self(managed)
    }

    /// A copy as tch's tensor. What gp_kept_tensor gives is row-major; it lies on the CPU unless asked otherwise.
    pub fn to_tensor(&self) -> Tensor {
        // SAFETY: whoever handed the tensor over vouches for what it says.
        unsafe {
            let managed = &*self.0;
            assert!(managed.major == 1 && managed.device_type == CPU && managed.strides.is_null());
            assert!(managed.dtype == FLOAT32, "only float32 is read here");
            let shape = match managed.ndim {
                0 => &[],
                rank => std::slice::from_raw_parts(managed.shape, rank as usize),
            };
            let bytes = 4 * shape.iter().product::<i64>() as usize;
            let data = managed.data.cast::<u8>().add(managed.byte_offset as usize);
            Tensor::from_data_size(std::slice::from_raw_parts(data, bytes), shape, Kind::Float)
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the tensor was handed over, so this call of its deleter is the only one.
        unsafe {
            if let Some(deleter) = (*self.0).deleter {
                deleter(self.0);
            }
        }
    }
}
