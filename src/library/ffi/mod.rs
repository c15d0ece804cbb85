//! The C ABI: a thin layer over [`graphpatch_session`] and [`graphpatch_core::graph`]. One file per C noun.
//!
//! Each call checks its pointers, runs its body in `guard`, and answers with a [`Status`]; the message of an error is kept in a
//! thread-local. No logic lives here. `include/graphpatch.h` is generated from these files.
#![allow(non_camel_case_types)] // the C names are the types' names

mod arguments;
pub mod aside;
pub mod call;
pub mod compiled;
pub mod cuda;
pub mod dlpack;
pub mod function;
pub mod graphs;
pub mod guard;
mod handle;
pub mod host_values;
pub mod kept;
pub mod live;
pub mod module;
pub mod nodes;
pub mod patch;
pub mod register;
pub mod run;
pub mod session;
mod sized;
mod slots;
pub mod source;
pub mod spec;
pub mod status;
pub mod string;
mod structure;
pub mod text;
pub mod torch;
pub mod value;
pub mod version;

use guard::guard;
use status::Status;
