//! Every lock that is used inside of a program: [`Mutex`], [`RwLock`], [`OnceLock`] and [`Lazy`], which a fork leaves free.
//!
//! This crate owns the [`gate`], which every one of these locks goes through. All crates that run inside of a program use the
//! locks; the adapter's C++ mutexes reach the gate by way of the seam. The library's fork handlers close the gate and open it
//! again.
//!
//! The rule: **a thread that holds a lock, waits for one, or makes a value that others wait for is inside the gate, and a fork
//! happens when no thread is inside.** A child then finds every lock free and all data whole. Two other ways do not work. To
//! take all locks before the fork would need a list of them (each patch, scope and run has its own) and an order among them. To
//! put new locks into the child would leave half-changed data behind them. No thread can be parked at a lock during a fork
//! either: `parking_lot` may hand a released lock to a parked thread, which does not exist in the child.
//!
//! Code that holds a lock must not call a user's code, which may wait for something that the forking thread holds, such as
//! Python's interpreter lock. If it does, nobody waits forever: see [`gate::PATIENCE`].

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
