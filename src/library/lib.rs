//! The shared library `libgraphpatch.so`: every symbol that it exports is in this crate.
//!
//! * [`ffi`] is the C ABI: calls come in, answers and statuses go out.
//! * [`inside`] is the life of a preloaded process: `graphpatch run` puts this library into a program, and it takes options in
//!   and gives reports out.
//! * [`python`] is Python's side of the C ABI for the calls that come most often: calls of modules.
//! * `filter` tells whether a program limits its own system calls.
//! * `fork` keeps all of these usable in forked children.
//! * `live` is the socket by which other programs look at this one and patch it.
//! * `memory` is the allocator. It keeps the library from ending a program that has no memory left.
//!
//! They only call the session; none holds logic of its own.

pub mod ffi;
mod filter;
mod fork;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod inside;
mod live;
mod memory;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod python;

// Calls of the C ABI with every kind of wrong argument. The fuzz target runs the same code without end.
#[cfg(test)]
#[path = "../../tests/fuzz/src/objects.rs"]
mod objects;
#[cfg(test)]
#[path = "../../tests/fuzz/src/sequence.rs"]
mod sequence;
#[cfg(test)]
mod sequence_tests;
