//! The shared library `libgraphpatch.so`: every symbol that it exports is in this crate.
//!
//! * [`ffi`] is the C ABI: calls come in, answers and statuses go out.
//! * [`inside`] is the life of a preloaded process: `graphpatch run` puts this library into a program, and it takes options in
//!   and gives reports out.
//! * `fork` keeps both usable in forked children.
//! * `memory` keeps both from ending a program that has no memory left.
//!
//! Both only call the session; neither holds logic of its own.

pub mod ffi;
mod fork;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod inside;
mod memory;
