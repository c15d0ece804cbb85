//! Every lock that is used inside of a program: [`Mutex`], [`RwLock`], [`OnceLock`] and [`Lazy`], which a fork leaves free.
//!
//! Owns the [`gate`] through which each of them goes. Calls come in from all crates that travel into a program and, by way
//! of the seam, from the adapter's C++ mutexes; the library's fork handlers close the gate and open it again.
//!
//! The rule: **whoever holds a lock, waits for one, or makes a value that others wait for is inside the gate, and a fork
//! happens when nobody is inside.** A child then finds every lock free and all data whole. To take all locks before the
//! fork instead would need a list of them (each patch, scope and run has its own) and an order among them; to put new
//! locks into the child would leave half-changed data behind them. Nobody can be parked at a lock either:
//! `parking_lot` may hand a lock that is let go to a parked thread, which does not exist in the child.
//!
//! Code that holds a lock does not call out into a user's code (which may wait for Python's interpreter lock, say, which the
//! forking thread may hold). Where that is broken nobody waits for ever: see [`gate::PATIENCE`].

pub mod gate;
mod once;
mod raw;

pub use once::{Lazy, OnceLock};
pub use raw::{RawMutex, RawRwLock};

/// As `parking_lot::Mutex`.
pub type Mutex<T> = parking_lot::lock_api::Mutex<RawMutex, T>;
/// As `parking_lot::MutexGuard`.
pub type MutexGuard<'a, T> = parking_lot::lock_api::MutexGuard<'a, RawMutex, T>;
/// As `parking_lot::RwLock`.
pub type RwLock<T> = parking_lot::lock_api::RwLock<RawRwLock, T>;

#[cfg(test)]
mod tests;
