//! One action on one strided tensor.
//!
//! Two-operand loops are in `pair.rs`, copies for probes in `gather.rs`. A [`View`] comes from the seam (`torch/seam.rs`), an action from a patch. Plain CPU memory is written here, by
//! `cpu.rs`; what it leaves to libtorch (a dtype or a conversion that libtorch may refuse) it says by
//! [`Outcome::Unsupported`], before anything was written.

pub mod cpu;
pub mod gather;
mod pair;
mod place;
pub mod scalar;
pub mod view;

pub use scalar::Scalar;
pub use view::View;

/// What came of an action that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value is changed.
    Done,
    /// Nothing was written; libtorch is to do it, or to refuse.
    Unsupported,
}
