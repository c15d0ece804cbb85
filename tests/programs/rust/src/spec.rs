//! Patches that text cannot express: those with tensors as values or with functions of the program.

use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};

use tch::Tensor;

use crate::dlpack::lend;
use crate::session::{Result, c_text, check};
use crate::sys::*;

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

/// What an add or a replace takes.
pub struct Value(*mut gp_value);

impl Value {
    /// A copy of numbers from anywhere.
    pub fn from_slice(data: &[f32], shape: &[i64]) -> Result<Self> {
        let mut value = null_mut();
        // SAFETY: the tensor is lent for the call; `value` may be written.
        check(lend(data, shape, |tensor| unsafe {
            gp_value_dlpack(tensor, false, &mut value)
        }))?;
        Ok(Self(value))
    }

    /// libtorch's own tensor; gradients flow to it.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let mut value = null_mut();
        // SAFETY: the tensor lives; the value holds a reference of its own.
        check(unsafe { gp_value_torch(impl_of(tensor), &mut value) })?;
        Ok(Self(value))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: specs that have it keep what they need.
        unsafe { gp_value_free(self.0) }
    }
}

type Function = Box<dyn Fn(&Tensor) -> Option<Tensor> + Send + Sync>;

/// A patch to be: a path, an index and what to do.
pub struct Spec(*mut gp_spec);

// SAFETY: in all calls below the spec lives, texts are C strings, and results may be written.
impl Spec {
    pub fn new(path: &str) -> Result<Self> {
        let (mut spec, path) = (null_mut(), c_text(path)?);
        check(unsafe { gp_spec_new(path.as_ptr(), &mut spec) })?;
        Ok(Self(spec))
    }

    pub fn slice(self, slice: &str) -> Result<Self> {
        let slice = c_text(slice)?;
        check(unsafe { gp_spec_slice(self.0, slice.as_ptr()) })?;
        Ok(self)
    }

    pub fn add(self, value: &Value) -> Result<Self> {
        check(unsafe { gp_spec_add(self.0, value.0) })?;
        Ok(self)
    }

    pub fn replace(self, value: &Value) -> Result<Self> {
        check(unsafe { gp_spec_replace(self.0, value.0) })?;
        Ok(self)
    }

    /// Only in runs on the thread that registers it.
    pub fn this_thread(self) -> Result<Self> {
        check(unsafe { gp_spec_this_thread(self.0, true) })?;
        Ok(self)
    }

    /// Replaces the value by the result of a function; None leaves it alone. The function is called on the thread that runs the
    /// model. A run that began before the patch went away may still call it, so it lives as long as the process.
    pub fn custom(
        self,
        function: impl Fn(&Tensor) -> Option<Tensor> + Send + Sync + 'static,
    ) -> Result<Self> {
        let function: Box<Function> = Box::new(Box::new(function));
        let user = Box::into_raw(function).cast();
        check(unsafe { gp_spec_custom_torch(self.0, Some(call_function), user) })?;
        Ok(self)
    }

    pub fn as_ptr(&self) -> *const gp_spec {
        self.0
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        // SAFETY: patches that were registered from it stay.
        unsafe { gp_spec_free(self.0) }
    }
}

thread_local! {
    /// The last replacement that a function on this thread returned. It must live until the thread's next call of a function.
    static GIVEN: RefCell<Option<Tensor>> = const { RefCell::new(None) };
}

/// # Safety
///
/// `user` is a `Function`, `tensor` a live at::TensorImpl or NULL, and `replacement` may be written.
unsafe extern "C" fn call_function(
    user: *mut c_void,
    tensor: *const c_void,
    replacement: *mut *const c_void,
) -> i32 {
    if tensor.is_null() {
        return 1; // the value is None, which these functions cannot take
    }
    // No panic may leave a function that C++ calls.
    let given = catch_unwind(AssertUnwindSafe(|| unsafe {
        let function = &*user.cast::<Function>();
        function(&tensor_at(tensor))
    }));
    let Ok(given) = given else {
        return 2;
    };
    unsafe { *replacement = given.as_ref().map_or(null(), impl_of) };
    GIVEN.set(given);
    0
}
