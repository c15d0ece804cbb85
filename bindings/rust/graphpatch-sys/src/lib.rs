//! The C ABI of libgraphpatch: every call, type and number of `graphpatch.h`, under the same names. The header's comments say what
//! each call does, and which threads may make it. The crate `graphpatch-tch` is a safe layer above it.
//!
//! Needs neither libtorch nor libclang to compile. `build.rs` says how the library is found.

mod dlpack;
mod generated;

pub use dlpack::{DLManagedTensorVersioned, Dtype};
pub use generated::*;
