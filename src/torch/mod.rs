//! The only room that knows libtorch: the seam, the adapter behind it, and its loader.
//!
//! * `seam.h` is the whole contract with the C++ side, `seam_generated.rs` its mirror, `seam.rs` our half of it.
//! * `adapter/` is the C++ half: one translation unit, compiled against the process's own libtorch.
//! * [`loader`] finds that libtorch and finds or builds the adapter; [`attach()`] brings them together.

pub mod loader;

mod attach;
mod flat;
mod foreign;
mod manual;
// A test binary would link these symbols before libtorch's.
#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
mod members;
mod seam;
#[rustfmt::skip]
mod seam_generated;

pub use attach::{attach, start};
pub use flat::{flat_forked, flat_start, flat_thread, is_flat};
pub use foreign::foreign;
pub use manual::{
    Leaf, Opened, Shown, leaf, open_run, open_scope, resume, run_begin, run_end, run_parameters,
    scope_enter, scope_leave, scope_next, scope_unwind, show, snapshot,
};
