//! Tensors of libtorch's own that patches use as values, gradients and all.

use std::ffi::c_void;
use std::sync::Arc;

use super::table::adapter;
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::action::Foreign;

/// Another reference to the tensor behind an `at::TensorImpl`.
///
/// # Safety
///
/// `tensor_impl` is NULL or points to a live `at::TensorImpl` of this process's libtorch.
///
/// # Errors
///
/// [`Error::Torch`] before any session was attached, [`Error::Argument`] for no tensor.
pub unsafe fn foreign(tensor_impl: *const c_void) -> Result<Arc<Foreign>> {
    let take = adapter()?.tensor_from_torch;
    // SAFETY: by this function's contract.
    let handle = take.map_or(std::ptr::null_mut(), |take| unsafe { take(tensor_impl) });
    if handle.is_null() {
        return Err(Error::Argument {
            name: "tensor_impl",
            why: "is no defined tensor".into(),
        });
    }
    Ok(Arc::new(Foreign::new(handle.expose_provenance(), release)))
}

fn release(handle: usize) {
    if let Ok(Some(free)) = adapter().map(|adapter| adapter.tensor_free) {
        // SAFETY: the handle is the adapter's own, given back once, by Foreign's Drop.
        unsafe { free(std::ptr::with_exposed_provenance_mut(handle)) };
    }
}
