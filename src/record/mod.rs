//! One run becomes a tree of nodes.
//!
//! Values arrive from the seam as flat lists of [`Element`]s. While the run goes on they are only written down on a
//! [`Tape`], in plain numbers; [`Tape::tree`] makes nodes of it, which is needed only if no earlier run left the same
//! tape. [`crate::session::Run`] tells the tape what happens, and under which name.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod element;
pub mod tape;

pub use element::{Element, Tag};
pub use tape::Tape;
