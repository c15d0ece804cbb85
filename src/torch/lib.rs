//! The only crate that knows libtorch: the seam, and the adapter behind it.
//!
//! * `seam.h` is the whole contract with the C++ side, `seam_generated.rs` its translation to Rust, `seam.rs` our half of it.
//! * `adapter/` is the C++ half: one translation unit, compiled against the process's own libtorch.
//! * [`attach()`] loads the adapter (by the crate `graphpatch_loader`) and brings both halves together.
//!
//! The adapter reports calls of operations, which go to the session; what the session wants of a value goes back to the
//! adapter. A host that reports its modules itself comes in through the C ABI.

mod attach;
mod edge;
mod flat;
mod foreign;
mod host_calls;
mod seam;
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks, reason = "bindgen's")]
mod seam_generated;
mod signature;
mod table;

pub use attach::{attach, detach, start};
pub use flat::{ModuleCall, OwnCall, flat_forked, flat_start, flat_thread, is_flat, modules_start};
pub use foreign::{NativeFunction, Takes, foreign, lend};
pub use host_calls::{HostValue, Leaf, leaf, run_begin, run_parameters, scope_enter, show};
pub use signature::Signature;
