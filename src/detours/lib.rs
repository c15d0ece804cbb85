//! Finds functions of a program, and has calls of them come to us first. On x86-64 alone.
//!
//! * [`members`] reads an object's symbols.
//! * [`slots`] finds where an object calls functions of other objects, and [`set_slot`] puts another function there.
//! * [`redirect`] writes a jump over a function's first instructions. They are kept elsewhere, so that the function can still be
//!   called.

#![cfg(target_arch = "x86_64")]

mod elf;
mod functions;
mod redirect;
mod slots;

pub use functions::{Function, members};
pub use redirect::{Refusal, redirect};
pub use slots::{Slot, set_slot, slots};
