//! Patches that text cannot express: those with tensors as values or with functions of the program.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};

use graphpatch_sys::{
    gp_callback_fail, gp_spec, gp_spec_add, gp_spec_custom_torch, gp_spec_free, gp_spec_new,
    gp_spec_release, gp_spec_replace, gp_spec_slice, gp_spec_this_thread, gp_value,
    gp_value_dlpack, gp_value_free, gp_value_torch,
};
use tch::Tensor;
use tch::kind::Element;

use crate::dlpack::lend;
use crate::error::{Result, c_text, check};
use crate::torch::{impl_of, tensor_at};

/// What an add or a replace takes.
pub struct Value(*mut gp_value);

impl Value {
    /// A copy of numbers from anywhere. An empty shape is that of a single number.
    pub fn from_slice<E: Element>(data: &[E], shape: &[i64]) -> Result<Self> {
        let mut value = null_mut();
        // SAFETY: the tensor is lent for the call; `value` may be written.
        check(lend(data, shape, |tensor| unsafe {
            gp_value_dlpack(tensor, false, &mut value)
        })?)?;
        Ok(Self(value))
    }

    /// libtorch's own tensor, on any device; gradients flow to it.
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

/// A patch to be: a path, an index and what to do. Without more it zeroes the whole value.
pub struct Spec(*mut gp_spec);

// SAFETY, for all calls below: the spec lives, texts are C strings, and results may be written.
impl Spec {
    pub fn new(path: &str) -> Result<Self> {
        let (mut spec, path) = (null_mut(), c_text(path)?);
        check(unsafe { gp_spec_new(path.as_ptr(), &mut spec) })?;
        Ok(Self(spec))
    }

    /// A part of the value, as `[:, 3]`.
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

    /// Puts the result of a function in the value's place; None leaves it alone. The function is called on the thread that runs the
    /// model, perhaps on several at once. One that panics is a patch that cannot be applied.
    pub fn custom(
        self,
        function: impl Fn(&Tensor) -> Option<Tensor> + Send + Sync + 'static,
    ) -> Result<Self> {
        let function: Box<Function> = Box::new(Box::new(function));
        let user = Box::into_raw(function).cast();
        if let Err(why) = check(unsafe { gp_spec_custom_torch(self.0, Some(call), user) }) {
            // SAFETY: the spec has not taken it.
            unsafe { release(user) };
            return Err(why);
        }
        check(unsafe { gp_spec_release(self.0, Some(release)) })?;
        Ok(self)
    }

    pub(crate) fn as_ptr(&self) -> *const gp_spec {
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
unsafe extern "C" fn call(
    user: *mut c_void,
    tensor: *const c_void,
    replacement: *mut *const c_void,
) -> i32 {
    if tensor.is_null() {
        return fail("the value is None, which a function of tensors cannot take");
    }
    // No panic may leave a function that C++ calls.
    let given = catch_unwind(AssertUnwindSafe(|| unsafe {
        let function = &*user.cast::<Function>();
        function(&tensor_at(tensor))
    }));
    match given {
        Ok(given) => {
            unsafe { *replacement = given.as_ref().map_or(null(), impl_of) };
            GIVEN.set(given);
            0
        }
        Err(panic) => fail(&said(&*panic)),
    }
}

/// # Safety
///
/// `user` is a `Function` that nobody calls any more.
unsafe extern "C" fn release(user: *mut c_void) {
    let function = unsafe { Box::from_raw(user.cast::<Function>()) };
    // What it holds may panic when it is dropped, and nothing can take that from here.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(function)));
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!(
        "it panicked: {}",
        text.unwrap_or_else(|| "for no known reason".into())
    )
}

fn fail(why: &str) -> i32 {
    // A NUL would end the text.
    let why = c_text(&why.replace('\0', " "));
    // SAFETY: the text is copied; NULL says nothing.
    unsafe { gp_callback_fail(why.as_ref().map_or(null(), |why| why.as_ptr())) }
}
