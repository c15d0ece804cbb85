//! The objects of the adapter that a run keeps alive.

use std::ffi::c_void;
use std::fmt::Debug;

/// The pointer by which the adapter knows an object of its own. The session only hands it on.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub *mut c_void);

impl Address {
    /// No object.
    pub const NONE: Address = Address(std::ptr::null_mut());
}

impl Default for Address {
    fn default() -> Address {
        Address::NONE
    }
}

/// An object of the adapter's that belongs to one run. It keeps alive the tensors that the run knows by address, so that the
/// addresses are not used again, and the patched copies of parameters, by the frame that they were made for. Dropping it may
/// run code of the user's, so it is dropped while nothing is borrowed.
pub trait Held: Debug + Send + Sync {
    /// Where the adapter finds it.
    fn address(&self) -> Address;
    /// The frame with this number was left, so its copies are dropped. Called on the run's own thread.
    fn leave(&self, frame: u32);
    /// The run is over, so all copies are dropped; the tensors' addresses stay in use. Called on the run's own thread.
    fn end(&self);
}
