//! DLPack 1's managed tensor, in which tensors cross the C ABI. The layout is DLPack's, which fixes it for all languages.

use std::ffi::c_void;

/// What an element is: `code` is DLPack's number of the kind (0 an integer, 1 without a sign, 2 a float, 4 a bfloat16, 5 a complex
/// number, 6 a bool).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

#[repr(C)]
pub struct DLManagedTensorVersioned {
    pub major: u32,
    pub minor: u32,
    pub manager_ctx: *mut c_void,
    /// Called once by whoever the tensor was handed to.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    pub flags: u64,
    pub data: *mut c_void,
    pub device_type: i32,
    pub device_id: i32,
    pub ndim: i32,
    pub dtype: Dtype,
    pub shape: *mut i64,
    /// In elements; NULL: row-major.
    pub strides: *mut i64,
    pub byte_offset: u64,
}
