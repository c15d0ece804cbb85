//! One action of a patch on one strided tensor in CPU memory.
//!
//! Owns the loops over a host tensor's elements. In come a [`View`] of the tensor's memory (from the seam), a slice and an
//! action (from a patch); the changed elements are written in place. `cpu.rs` does actions with a number, `pair.rs` those
//! with a tensor, `gather.rs` copies a view for a probe, and `rows.rs` has the loops that they share. What libtorch has to do,
//! because it may refuse a dtype or a conversion, is answered by [`Outcome::Unsupported`] before anything was written.

pub mod cpu;
pub mod gather;
mod pair;
mod rows;
pub mod scalar;
pub mod view;

pub use scalar::Scalar;
pub use view::View;

/// How an action that did not fail has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value is changed.
    Done,
    /// Nothing was written; libtorch has to do the action, or to refuse it.
    Unsupported,
}
