//! Objects that C holds by a pointer. Each C type says once which Rust value is behind its pointers and who owns that value;
//! the functions here are the only ones that turn one into the other. A call that frees an object in the wrong way, changes
//! one that other threads may read, or takes a pointer for one of another type does not compile.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

use super::arguments::{answer, null};
use super::guard;
use graphpatch_core::error::Result;

/// A type of the header that C knows by its name alone.
pub(super) trait Handle: Sized {
    /// The name of its arguments, for messages.
    const NAME: &'static str;
    /// The value behind a pointer to it.
    type Value;
    /// Who owns that value: [`Boxed`], [`Shared`] or [`Lent`].
    type Owner;
}

/// The caller owns the value alone.
pub(super) enum Boxed {}

/// The caller owns a share of the value; runs and other objects may own more of them.
pub(super) enum Shared {}

/// The library owns the value, and lends it for the length of a callback.
pub(super) enum Lent {}

/// Owners to whom a value is handed over, and who hand it back to be freed.
pub(super) trait Owns<T> {
    /// What is handed over.
    type Owned;
    fn into_raw(owned: Self::Owned) -> *const T;
    /// # Safety
    ///
    /// `raw` came from [`Owns::into_raw`], and nobody uses it after this call.
    unsafe fn from_raw(raw: *const T) -> Self::Owned;
}

impl<T> Owns<T> for Boxed {
    type Owned = Box<T>;
    fn into_raw(owned: Box<T>) -> *const T {
        Box::into_raw(owned)
    }
    unsafe fn from_raw(raw: *const T) -> Box<T> {
        // SAFETY: by this function's contract; `into_raw` made it from a pointer that may be written.
        unsafe { Box::from_raw(raw.cast_mut()) }
    }
}

impl<T> Owns<T> for Shared {
    type Owned = Arc<T>;
    fn into_raw(owned: Arc<T>) -> *const T {
        Arc::into_raw(owned)
    }
    unsafe fn from_raw(raw: *const T) -> Arc<T> {
        // SAFETY: by this function's contract.
        unsafe { Arc::from_raw(raw) }
    }
}

/// Owners whose value a call may change, because no other thread uses it meanwhile.
pub(super) trait Exclusive {}
impl Exclusive for Boxed {}
impl Exclusive for Lent {}

/// What is handed over for a pointer to `C`.
pub(super) type Owned<C> = <<C as Handle>::Owner as Owns<<C as Handle>::Value>>::Owned;

/// Hands an object over to the caller.
///
/// # Safety
///
/// `out` is NULL or may be written.
pub(super) unsafe fn give<C: Handle>(out: *mut *mut C, owned: Owned<C>) -> Result<()>
where
    C::Owner: Owns<C::Value>,
{
    if out.is_null() {
        return Err(null("out"));
    }
    let raw = C::Owner::into_raw(owned).cast_mut().cast();
    // SAFETY: by this function's contract.
    unsafe { answer(out, "out", raw) }
}

/// Takes an object back from the caller; `None` for NULL.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`] and is not used any more.
pub(super) unsafe fn take<C: Handle>(pointer: *mut C) -> Option<Owned<C>>
where
    C::Owner: Owns<C::Value>,
{
    // SAFETY: by this function's contract.
    (!pointer.is_null()).then(|| unsafe { C::Owner::from_raw(pointer.cast_const().cast()) })
}

/// Frees what the caller owns of an object. NULL is fine.
///
/// # Safety
///
/// As [`take`].
pub(super) unsafe fn free<C: Handle>(pointer: *mut C)
where
    C::Owner: Owns<C::Value>,
{
    // Its end may run code of the user's.
    guard(|| {
        // SAFETY: by this function's contract.
        drop(unsafe { take(pointer) });
        Ok(())
    });
}

/// The value behind a pointer.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`] or [`lend`] and lives until `'a` ends; nobody changes the value until then.
pub(super) unsafe fn reference<'a, C: Handle + 'a>(pointer: *const C) -> Result<&'a C::Value> {
    // SAFETY: by this function's contract.
    unsafe { pointer.cast::<C::Value>().as_ref() }.ok_or_else(|| null(C::NAME))
}

/// The value behind a pointer, to change it.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`] or [`lend`] and lives until `'a` ends; nobody else uses the value until then.
pub(super) unsafe fn exclusive<'a, C: Handle + 'a>(pointer: *mut C) -> Result<&'a mut C::Value>
where
    C::Owner: Exclusive,
{
    // SAFETY: by this function's contract.
    unsafe { pointer.cast::<C::Value>().as_mut() }.ok_or_else(|| null(C::NAME))
}

/// The share that the caller owns, borrowed.
pub(super) struct Share<'a, T>(ManuallyDrop<Arc<T>>, PhantomData<&'a T>);

impl<T> Deref for Share<'_, T> {
    type Target = Arc<T>;
    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

/// The share behind a pointer.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`] and lives until `'a` ends.
pub(super) unsafe fn share<'a, C>(pointer: *const C) -> Result<Share<'a, C::Value>>
where
    C: Handle<Owner = Shared> + 'a,
{
    // SAFETY: by this function's contract.
    unsafe { share_or_none(pointer) }.ok_or_else(|| null(C::NAME))
}

/// The share behind a pointer; `None` for NULL.
///
/// # Safety
///
/// As [`share`].
pub(super) unsafe fn share_or_none<'a, C>(pointer: *const C) -> Option<Share<'a, C::Value>>
where
    C: Handle<Owner = Shared> + 'a,
{
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by this function's contract; what is never dropped leaves the caller's share as it is.
    let share = unsafe { Arc::from_raw(pointer.cast::<C::Value>()) };
    Some(Share(ManuallyDrop::new(share), PhantomData))
}

/// Lends a value to a callback.
pub(super) fn lend<C: Handle<Owner = Lent>>(value: &mut C::Value) -> *mut C {
    (&raw mut *value).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Alone([u8; 0]);
    impl Handle for Alone {
        const NAME: &'static str = "alone";
        type Value = Vec<u8>;
        type Owner = Boxed;
    }

    struct Together([u8; 0]);
    impl Handle for Together {
        const NAME: &'static str = "together";
        type Value = u8;
        type Owner = Shared;
    }

    #[test]
    fn a_box_goes_out_and_comes_back() {
        let mut pointer: *mut Alone = std::ptr::null_mut();
        // SAFETY: the pointer is a local, and is given back once.
        unsafe {
            give(&raw mut pointer, Box::new(vec![1])).unwrap();
            exclusive(pointer).unwrap().push(2);
            assert_eq!(reference(pointer).unwrap(), &[1, 2]);
            assert_eq!(*take(pointer).unwrap(), [1, 2]);
        }
    }

    #[test]
    fn a_share_is_counted_once_however_often_it_is_borrowed() {
        let ours = Arc::new(7);
        let mut pointer: *mut Together = std::ptr::null_mut();
        // SAFETY: the pointer is a local, and is freed once.
        unsafe {
            give(&raw mut pointer, Arc::clone(&ours)).unwrap();
            assert!(Arc::ptr_eq(&share(pointer).unwrap(), &ours));
            let kept = Arc::clone(&share(pointer).unwrap());
            assert_eq!(Arc::strong_count(&ours), 3);
            free(pointer);
            assert_eq!(Arc::strong_count(&ours), 2);
            assert_eq!(*kept, 7);
        }
    }

    #[test]
    fn null_is_refused_by_the_name_of_its_argument() {
        // SAFETY: NULL is refused.
        unsafe {
            let why = reference::<Alone>(std::ptr::null()).unwrap_err();
            assert!(why.to_string().contains("alone"), "{why}");
            let why = exclusive::<Alone>(std::ptr::null_mut()).unwrap_err();
            assert!(why.to_string().contains("alone"), "{why}");
            let why = share::<Together>(std::ptr::null()).err().unwrap();
            assert!(why.to_string().contains("together"), "{why}");
            assert!(take::<Alone>(std::ptr::null_mut()).is_none());
            free::<Together>(std::ptr::null_mut());
        }
    }

    #[test]
    fn what_nobody_receives_is_freed() {
        let ours = Arc::new(7);
        // SAFETY: NULL is refused.
        let given = unsafe { give::<Together>(std::ptr::null_mut(), Arc::clone(&ours)) };
        assert!(given.unwrap_err().to_string().contains("out"));
        assert_eq!(Arc::strong_count(&ours), 1);
    }
}
