//! One run becomes a tree of nodes.
//!
//! Values arrive from the seam as flat lists of [`Element`]s. While the run goes on they are only written to a [`Tape`], as
//! plain numbers. [`Tape::tree`] turns the tape into nodes, which is needed only if no earlier run left an equal tape. What a
//! value was made from ([`Args`]) is recorded only if no earlier run came to the value in the same way.
//! [`crate::Run`] tells the tape what happens, and under which name.

pub mod args;
pub mod element;
mod reader;
mod recorder;
pub mod tape;
mod tree;
#[cfg(test)]
mod tree_tests;

pub use args::{Args, Source};
pub use element::{Element, Tag};
pub(crate) use recorder::Recorder;
pub use tape::Tape;
