//! libgraphpatch: look inside, and change, any running libtorch model.
//!
//! Two lines run through this house; every other room is a door to them.
//!
//! * **Op to graph.** An operation is called → the C++ adapter's boxed fallback ([`torch`], `adapter/`) →
//!   the seam (`torch/seam.h`) → [`session`] → [`record`] → [`graph`].
//! * **Patch to buffer.** Patch text or C call → [`patch`] (parsed, checked, compiled into a plan) → held by the
//!   [`session`]; at the operation the session finds the site → [`apply`] changes the value's own memory, or [`cuda`]
//!   launches a kernel that does.
//!
//! | room | owns | knows |
//! |---|---|---|
//! | [`path`] | NodePath, slice, names | nothing |
//! | [`native`] | where in a native program a thread is: addresses, then names and lines | nothing |
//! | [`graph`] | nodes, shapes, tree text, JSON | path, native |
//! | [`tensor`] | tensors in host memory, npy and safetensors files | nothing |
//! | [`patch`] | patch kinds, patch text and files, the plan | path, tensor |
//! | [`apply`] | one action on one strided view | path, tensor, patch |
//! | [`cuda`] | one action on one CUDA value, as a launch | path, tensor, patch, apply; the only room that knows CUDA |
//! | [`record`] | operation calls to nodes | path, graph, native |
//! | [`session`] | runs and scopes per thread: where record and patch meet | all of the above |
//! | [`torch`] | the seam, the adapter, its loader | session; the only room that knows libtorch |
//! | [`ffi`] | the C ABI | session |
//! | [`preload`] | the life of a preloaded process | session |
//! | `bin/graphpatch` | the command | preload's options and report, graph, patch, torch's loader |

pub mod apply;
pub mod cuda;
pub mod error;
pub mod ffi;
pub mod graph;
pub mod native;
pub mod patch;
pub mod path;
pub mod preload;
pub mod record;
pub mod session;
pub mod tensor;
pub mod torch;
