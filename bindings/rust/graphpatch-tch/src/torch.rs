//! libtorch's own tensors, as they cross the C ABI.

use std::ffi::c_void;

use tch::Tensor;

/// The at::TensorImpl behind a tensor: tch points to a C++ at::Tensor, which is one pointer to it.
pub fn impl_of(tensor: &Tensor) -> *const c_void {
    // SAFETY: an at::Tensor is as large as a pointer and never NULL, an undefined one neither.
    unsafe { *tensor.as_ptr().cast::<*const c_void>() }
}

/// Another reference to the tensor behind an at::TensorImpl.
///
/// # Safety
///
/// `tensor` is a live at::TensorImpl.
pub unsafe fn tensor_at(mut tensor: *const c_void) -> Tensor {
    // SAFETY: the pointer itself stands in for an at::Tensor, which is only copied.
    unsafe { Tensor::clone_from_ptr((&raw mut tensor).cast()) }
}
