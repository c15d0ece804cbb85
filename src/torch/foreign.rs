//! Objects of libtorch and of the user that patches hold: tensors, functions, and copies on devices. The crate `graphpatch-core`
//! knows them only as traits; their pointers are here.

use std::any::Any;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::table::adapter;
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::action::{ForeignTensor, UserFunction};
use graphpatch_core::patch::kept::Remote;
use graphpatch_locks::OnceLock;

/// A tensor that patches use as a value, gradients included: a handle of the adapter's, which holds a reference.
#[derive(Debug)]
pub(crate) struct TorchTensor(NonNull<c_void>);

// SAFETY: the handle is an at::Tensor of its own, whose count of references is atomic; the adapter only reads it.
unsafe impl Send for TorchTensor {}
// SAFETY: as above.
unsafe impl Sync for TorchTensor {}

impl ForeignTensor for TorchTensor {}

impl TorchTensor {
    /// The adapter's handle of an operand; `None` for a tensor that is not this crate's.
    pub fn handle(tensor: &dyn ForeignTensor) -> Option<*mut c_void> {
        let any: &dyn Any = tensor;
        Some(any.downcast_ref::<TorchTensor>()?.0.as_ptr())
    }
}

impl Drop for TorchTensor {
    fn drop(&mut self) {
        if let Ok(Some(free)) = adapter().map(|adapter| adapter.tensor_free) {
            // SAFETY: the handle is the adapter's own, and this is the one time that it is given back.
            unsafe { free(self.0.as_ptr()) };
        }
    }
}

/// Another reference to the tensor behind an `at::TensorImpl`.
///
/// # Safety
///
/// `tensor_impl` is NULL or points to a live `at::TensorImpl` of this process's libtorch.
///
/// # Errors
///
/// [`Error::Torch`] before any session was attached, [`Error::Argument`] for no tensor.
pub unsafe fn foreign(tensor_impl: *const c_void) -> Result<Arc<dyn ForeignTensor>> {
    let take = adapter()?.tensor_from_torch;
    // SAFETY: by this function's contract.
    let handle = take.map_or(std::ptr::null_mut(), |take| unsafe { take(tensor_impl) });
    let handle = NonNull::new(handle).ok_or_else(|| Error::Argument {
        name: "tensor_impl",
        why: "is no defined tensor".into(),
    })?;
    Ok(Arc::new(TorchTensor(handle)))
}

/// The kind of tensor that a function of the user's takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// DLPack's: `gp_callback`.
    DlPack,
    /// libtorch's own: `gp_torch_callback`.
    Torch,
}

/// A function of the user's that takes the user's pointer back.
type Release = unsafe extern "C" fn(user: *mut c_void);

/// A function of the user's, which the adapter calls with the value: `gp_callback` and `gp_torch_callback` in the C header.
#[derive(Debug)]
pub struct NativeFunction {
    pub(crate) function: *mut c_void,
    pub(crate) user: *mut c_void,
    pub(crate) takes: Takes,
    release: OnceLock<Release>,
}

// SAFETY: the user says that the function may be called on every thread, several times at once (`gp_callback`).
unsafe impl Send for NativeFunction {}
// SAFETY: as above.
unsafe impl Sync for NativeFunction {}

impl UserFunction for NativeFunction {}

impl NativeFunction {
    /// A function that is called with `user` in front.
    ///
    /// # Safety
    ///
    /// `function` is a `gp_callback` or a `gp_torch_callback`, as `takes` says, and may be called with `user` on any thread for
    /// as long as the function lives.
    pub unsafe fn new(function: *mut c_void, user: *mut c_void, takes: Takes) -> NativeFunction {
        NativeFunction {
            function,
            user,
            takes,
            release: OnceLock::new(),
        }
    }

    /// The function of a patch; `None` for one that is not this crate's.
    pub fn of(function: &dyn UserFunction) -> Option<&NativeFunction> {
        let any: &dyn Any = function;
        any.downcast_ref()
    }

    /// Has `release` called with `user` when nobody can call the function any more. Returns false, and changes nothing, if this
    /// was called before.
    ///
    /// # Safety
    ///
    /// `release` may be called once with this function's `user`, on any thread.
    pub unsafe fn release_with(&self, release: Release) -> bool {
        self.release.set(release).is_ok()
    }
}

impl Drop for NativeFunction {
    fn drop(&mut self) {
        if let Some(release) = self.release.get() {
            // SAFETY: by the contract of `release_with`; this is the one call, and nobody has the function any more.
            unsafe { release(self.user) };
        }
    }
}

/// A copy of a value on its device: a handle of the adapter's.
#[derive(Debug)]
pub(crate) struct DeviceCopy(NonNull<c_void>);

// SAFETY: the handle is the adapter's own copy, which the adapter reads, lends and frees on any thread. If a replayed graph
// writes the copy, the device's streams put writing and reading in order.
unsafe impl Send for DeviceCopy {}
// SAFETY: as above.
unsafe impl Sync for DeviceCopy {}

impl DeviceCopy {
    /// Takes over a handle; `None` for NULL.
    ///
    /// # Safety
    ///
    /// `handle` is NULL or a live handle that the adapter hands over (`GpKept`).
    pub unsafe fn take(handle: *mut c_void) -> Option<DeviceCopy> {
        NonNull::new(handle).map(DeviceCopy)
    }
}

impl Remote for DeviceCopy {
    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        let Some(read) = adapter()?.kept_read else {
            return Err(Error::Internal("the adapter reads no kept values".into()));
        };
        // SAFETY: a live handle of the adapter's; `bytes` may be written. The text stays until this thread asks again.
        let why = unsafe {
            let answer = read(self.0.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len());
            match answer.data.is_null() {
                true => &[][..],
                false => std::slice::from_raw_parts(answer.data.cast::<u8>(), answer.size),
            }
        };
        match why {
            [] => Ok(()),
            why => Err(Error::Torch(String::from_utf8_lossy(why).into_owned())),
        }
    }
}

impl Drop for DeviceCopy {
    fn drop(&mut self) {
        if let Ok(Some(free)) = adapter().map(|adapter| adapter.kept_free) {
            // SAFETY: the handle is the adapter's own, and this is the one time that it is given back.
            unsafe { free(self.0.as_ptr()) };
        }
    }
}

/// A new DLPack managed tensor that shares the copy on its device. The caller has to call its deleter.
pub fn lend(copy: &dyn Remote) -> Option<NonNull<c_void>> {
    let any: &dyn Any = copy;
    let copy: &DeviceCopy = any.downcast_ref()?;
    // SAFETY: a live handle of the adapter's.
    NonNull::new(unsafe { adapter().ok()?.kept_lend?(copy.0.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::patch::Patch;
    use graphpatch_core::patch::action::{Action, NewPatch};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Takes the user's pointer back, and counts how often that happens.
    unsafe extern "C" fn count(user: *mut c_void) {
        // SAFETY: the tests hand over a live counter.
        unsafe { &*user.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn the_user_is_handed_back_once_when_the_last_holder_is_gone() {
        let counter = AtomicU32::new(0);
        let calls = || counter.load(Ordering::Relaxed);
        let user = (&raw const counter).cast_mut().cast();
        // SAFETY: nobody calls the function.
        let function = unsafe { NativeFunction::new(std::ptr::null_mut(), user, Takes::DlPack) };
        let action = Action::Custom(Arc::new(function));
        let spec = NewPatch {
            action,
            ..NewPatch::zero("x".parse().unwrap())
        };
        let before = Patch::new(1, spec.fresh());
        let Action::Custom(function) = &spec.action else {
            panic!("no function")
        };
        let native = NativeFunction::of(function.as_ref()).unwrap();
        // SAFETY: the counter outlives the function.
        let asked = || unsafe { native.release_with(count) };
        assert!(asked() && !asked());
        let after = Patch::new(2, spec.fresh());
        drop(spec);
        drop(after);
        assert_eq!(
            calls(),
            0,
            "a patch that was registered before still has it"
        );
        drop(before);
        assert_eq!(calls(), 1);
    }

    #[test]
    fn nothing_is_handed_back_that_was_not_handed_over() {
        let user = std::ptr::dangling_mut::<u8>().cast();
        // SAFETY: nobody calls the function.
        drop(unsafe { NativeFunction::new(std::ptr::null_mut(), user, Takes::Torch) });
    }

    #[test]
    fn only_what_is_ours_is_looked_into() {
        #[derive(Debug)]
        struct Other;
        impl UserFunction for Other {}
        impl ForeignTensor for Other {}
        impl Remote for Other {
            fn read(&self, _: &mut [u8]) -> Result<()> {
                Ok(())
            }
        }
        assert!(NativeFunction::of(&Other).is_none());
        assert!(TorchTensor::handle(&Other).is_none());
        assert!(lend(&Other).is_none());
    }
}
