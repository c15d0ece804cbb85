//! One run becomes a tree of nodes.
//!
//! Values arrive from the seam as flat lists of [`Element`]s, and leave as [`crate::graph::Value`]s in nodes. The
//! [`Recorder`] keeps the open scopes; [`crate::session::Run`] tells it what happens and under which name.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod element;
pub mod recorder;

pub use element::{Element, Tag, value_of};
pub use recorder::Recorder;
