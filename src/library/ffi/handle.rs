//! Objects that C holds by a pointer. Each C type says once which Rust value is behind its pointers and who owns that value;
//! the functions here are the only ones that turn one into the other. A call that changes an object which other threads may
//! read does not compile; one that is given a pointer of another type, or to what was freed, answers an error ([`slots`]).

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::arguments::{answer, null, wrong};
use super::guard;
use super::slots::{self, Kind, Pin, Refusal};
use graphpatch_core::error::{Error, Result};

/// A type of the header that C knows by its name alone.
pub(super) trait Handle: Sized {
    /// The name of its arguments, for messages.
    const NAME: &'static str;
    /// The type that the number in its pointers names (see [`slots`]).
    const KIND: Kind;
    /// The value behind a pointer to it.
    type Value;
    /// Who owns that value: [`Boxed`], [`Shared`] or [`Lent`].
    type Owner: Owns<Self::Value>;
}

/// The caller owns the value alone.
pub(super) enum Boxed {}

/// The caller owns a share of the value; runs and other objects may own more of them.
pub(super) enum Shared {}

/// The library owns the value, and lends it for the length of a callback.
pub(super) enum Lent {}

/// How the value of a pointer is owned.
pub(super) trait Owns<T> {
    /// What is handed over.
    type Owned;
    fn into_raw(owned: Self::Owned) -> *mut T;
    /// # Safety
    ///
    /// `raw` came from [`Owns::into_raw`], and nobody uses it after this call.
    unsafe fn from_raw(raw: *mut T) -> Self::Owned;
}

impl<T> Owns<T> for Boxed {
    type Owned = Box<T>;
    fn into_raw(owned: Box<T>) -> *mut T {
        Box::into_raw(owned)
    }
    unsafe fn from_raw(raw: *mut T) -> Box<T> {
        // SAFETY: by this function's contract.
        unsafe { Box::from_raw(raw) }
    }
}

impl<T> Owns<T> for Lent {
    type Owned = Box<T>;
    fn into_raw(owned: Box<T>) -> *mut T {
        Box::into_raw(owned)
    }
    unsafe fn from_raw(raw: *mut T) -> Box<T> {
        // SAFETY: by this function's contract.
        unsafe { Box::from_raw(raw) }
    }
}

impl<T> Owns<T> for Shared {
    type Owned = Arc<T>;
    fn into_raw(owned: Arc<T>) -> *mut T {
        Arc::into_raw(owned).cast_mut()
    }
    unsafe fn from_raw(raw: *mut T) -> Arc<T> {
        // SAFETY: by this function's contract.
        unsafe { Arc::from_raw(raw.cast_const()) }
    }
}

/// Owners whose value a call may change, because no other call uses it meanwhile.
pub(super) trait Exclusive {}
impl Exclusive for Boxed {}
impl Exclusive for Lent {}

/// What is handed over for a pointer to `C`.
pub(super) type Owned<C> = <<C as Handle>::Owner as Owns<<C as Handle>::Value>>::Owned;

/// Enters an object that C is going to hold into the table, and returns the pointer that C gets for it.
fn enter<C: Handle>(owned: Owned<C>) -> Result<*mut C> {
    let raw = C::Owner::into_raw(owned);
    match slots::enter(C::KIND, raw.cast()) {
        Some(pointer) => Ok(std::ptr::without_provenance_mut(pointer)),
        None => {
            end::<C>(Some(raw.cast()));
            Err(Error::State("no memory for one more object".into()))
        }
    }
}

/// Drops an object that the table no longer holds.
fn end<C: Handle>(value: Option<*mut ()>) {
    if let Some(raw) = value {
        // SAFETY: the table answers each object once, with the type it came with.
        drop(unsafe { C::Owner::from_raw(raw.cast()) });
    }
}

/// The error for a refused pointer.
fn refused<C: Handle>(why: Refusal) -> Error {
    let ours = C::KIND.name();
    let why = match why {
        Refusal::Foreign => format!("is no {ours} of this library"),
        Refusal::IsA(other) => format!("is a {}, no {ours}", other.name()),
        Refusal::Freed => format!("is a {ours} that was freed"),
        Refusal::InUse => {
            let name = C::NAME;
            return Error::State(format!(
                "{name}: another call uses this {ours}, which only one may do at a time"
            ));
        }
    };
    wrong(C::NAME, why)
}

/// Hands an object over to the caller.
///
/// # Safety
///
/// `out` is NULL or may be written.
pub(super) unsafe fn give<C: Handle>(out: *mut *mut C, owned: Owned<C>) -> Result<()> {
    if out.is_null() {
        return Err(null("out"));
    }
    // SAFETY: by this function's contract.
    unsafe { answer(out, "out", enter::<C>(owned)?) }
}

/// Frees what the caller owns of an object; calls that use it meanwhile go on with it. NULL is fine.
pub(super) fn free<C: Handle>(pointer: *mut C) {
    // To drop the object may run code of the user's, so it happens inside the guard.
    guard(|| match pointer.is_null() {
        true => Ok(()),
        false => free_live(pointer),
    });
}

fn free_live<C: Handle>(pointer: *mut C) -> Result<()> {
    end::<C>(slots::free(pointer.addr(), C::KIND).map_err(refused::<C>)?);
    Ok(())
}

/// Takes the caller's share back; `None` for NULL.
pub(super) fn take_share<C>(pointer: *mut C) -> Result<Option<Arc<C::Value>>>
where
    C: Handle<Owner = Shared>,
{
    let Some(share) = share_or_none(pointer)? else {
        return Ok(None);
    };
    let kept = Arc::clone(&share);
    free_live(pointer)?;
    Ok(Some(kept))
}

/// An object in use by a call.
struct Used<C: Handle>(Pin, PhantomData<C>);

impl<C: Handle> Used<C> {
    fn new(pointer: *const C, alone: bool) -> Result<Used<C>> {
        if pointer.is_null() {
            return Err(null(C::NAME));
        }
        let pin = slots::pin(pointer.addr(), C::KIND, alone).map_err(refused::<C>)?;
        Ok(Used(pin, PhantomData))
    }

    fn value(&self) -> *mut C::Value {
        self.0.value().cast()
    }
}

impl<C: Handle> Drop for Used<C> {
    #[inline]
    fn drop(&mut self) {
        end::<C>(self.0.end());
    }
}

/// The value behind a pointer.
pub(super) struct Reference<C: Handle>(Used<C>);

impl<C: Handle> Deref for Reference<C> {
    type Target = C::Value;
    fn deref(&self) -> &C::Value {
        // SAFETY: `enter` was given a value of this type, which lives while it is pinned; who changes one pins it alone.
        unsafe { &*self.0.value() }
    }
}

/// The value behind a pointer.
pub(super) fn reference<C: Handle>(pointer: *const C) -> Result<Reference<C>> {
    Used::new(pointer, false).map(Reference)
}

/// The value behind a pointer, to change it.
pub(super) struct Alone<C: Handle>(Used<C>);

impl<C: Handle> Deref for Alone<C> {
    type Target = C::Value;
    fn deref(&self) -> &C::Value {
        // SAFETY: as for a `Reference`.
        unsafe { &*self.0.value() }
    }
}

impl<C: Handle> DerefMut for Alone<C> {
    fn deref_mut(&mut self) -> &mut C::Value {
        // SAFETY: as above; nobody else has the value pinned.
        unsafe { &mut *self.0.value() }
    }
}

/// The value behind a pointer, to change it.
pub(super) fn exclusive<C: Handle>(pointer: *mut C) -> Result<Alone<C>>
where
    C::Owner: Exclusive,
{
    Used::new(pointer, true).map(Alone)
}

/// The share that the caller owns, borrowed.
pub(super) struct Share<C: Handle>(ManuallyDrop<Arc<C::Value>>, #[expect(dead_code)] Used<C>);

impl<C: Handle> Deref for Share<C> {
    type Target = Arc<C::Value>;
    fn deref(&self) -> &Arc<C::Value> {
        &self.0
    }
}

/// The share behind a pointer.
pub(super) fn share<C>(pointer: *const C) -> Result<Share<C>>
where
    C: Handle<Owner = Shared>,
{
    let used = Used::new(pointer, false)?;
    // SAFETY: the share that `enter` was given, which stays the caller's: what is never dropped leaves it as it is. It is not
    // ended while `used` lives.
    let share = unsafe { Arc::from_raw(used.value().cast_const()) };
    Ok(Share(ManuallyDrop::new(share), used))
}

/// The share behind a pointer; `None` for NULL.
pub(super) fn share_or_none<C>(pointer: *const C) -> Result<Option<Share<C>>>
where
    C: Handle<Owner = Shared>,
{
    match pointer.is_null() {
        true => Ok(None),
        false => share(pointer).map(Some),
    }
}

/// Lends a value to a callback, and returns the value as the callback left it. Afterwards the pointer is refused. If another
/// thread still uses the value when the callback returns, which the rules forbid, the value is lost.
pub(super) fn lend<C>(value: C::Value, callback: impl FnOnce(*mut C)) -> C::Value
where
    C: Handle<Owner = Lent>,
    C::Value: Default,
{
    let Ok(pointer) = enter::<C>(Box::new(value)) else {
        return C::Value::default();
    };
    callback(pointer);
    let made = exclusive(pointer).map(|mut value| std::mem::take(&mut *value));
    free(pointer);
    made.unwrap_or_default()
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
