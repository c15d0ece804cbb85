//! What the host's side keeps alive for a run.

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

/// An object of the adapter's that belongs to one run: it keeps the addresses by which the run knows tensors from being
/// used again, and the patched copies of parameters, by the frame they were made for. Its end may run code of the
/// user's, so it is dropped while nothing is borrowed.
pub trait Held: Debug + Send + Sync {
    /// Where the adapter finds it.
    fn address(&self) -> Address;
    /// The frame of this number is left: its copies go. Called on the run's own thread.
    fn leave(&self, frame: u32);
    /// The run is over: all copies go, addresses stay taken. Called on the run's own thread.
    fn end(&self);
}
