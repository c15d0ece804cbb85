//! NodePaths, slices and names as text.
//!
//! This module knows no graph and no tensor. [`Name`]s are made while a run is recorded, and [`Namespace`] keeps them unique
//! in their scope the way torch.fx does. [`NodePath`]s, [`Pattern`]s and [`Slice`]s come from the user; a slice becomes a
//! [`Region`](crate::layout::Region) only when a value's sizes and strides are at hand.

mod glob;
pub mod name;
pub mod namespace;
pub mod node_path;
mod pattern;
mod root_name;
pub mod slice;

pub use glob::Glob;
pub use name::{Base, Name, base_str, family_text, intern, sanitize};
pub use namespace::Namespace;
pub use node_path::NodePath;
pub use pattern::Pattern;
pub use root_name::names_root;
pub use slice::{Item, Slice};
