//! Looks inside, and patches, the tensors of models that the crate `tch` runs: TorchScript modules as they are, and models written
//! with `tch::nn` by a [`Scope`] for each module.
//!
//! ```no_run
//! let session = graphpatch_tch::Session::attach()?;
//! let module = tch::CModule::load("encoder.pt")?;
//! let zero = session.patch("encoder.layer_5.output[0]=zero")?;   // until it is dropped
//! # let x = tch::Tensor::from(1);
//! module.forward_ts(&[x])?;
//! println!("{:?}", zero.counts()?);
//! # Ok::<(), graphpatch_tch::Error>(())
//! ```
//!
//! | module | has |
//! |---|---|
//! | [`session`] | [`Session`] and [`Patch`]: what holds while a model runs |
//! | [`graphs`] | [`Graphs`]: what was recorded, read by path |
//! | [`spec`] | [`Spec`] and [`Value`]: patches with tensors or functions, which text cannot say |
//! | [`module`] | [`Root`] and [`Scope`]: modules that are written in Rust |
//! | [`error`] | [`Error`] |

pub mod error;
pub mod graphs;
pub mod module;
pub mod session;
pub mod spec;

mod dlpack;
mod torch;

pub use error::{Error, Result};
pub use graphpatch_sys::gp_status as Status;
pub use graphs::{Graph, Graphs};
pub use module::{Root, Scope};
pub use session::{Counts, Patch, Session};
pub use spec::{Spec, Value};
