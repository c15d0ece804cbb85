//! The session that a user opens: recording, patches, and the graphs of all runs.
//!
//! A session is *off* (nothing is wanted), *recording*, *patching* or both, or *disabled* after a bug of ours. One session of
//! the program's own at a time is attached to the process, and beside it the one of `graphpatch run`. A call of a root looks
//! for them once ([`Run::begin`]) and keeps what it found (the plan, whether it records) until the call ends. So a change takes
//! effect from the next run on.
#![forbid(unsafe_code)]

mod arranged;
mod attached;
mod device;
mod enter;
pub mod flat;
mod fork;
mod frame;
mod graphs;
pub mod held;
mod inside;
pub mod keyed;
mod live;
mod memory;
mod missed;
mod open_tapes;
mod opened;
pub mod ops;
mod parameters;
pub mod patches;
pub mod record;
mod recorded;
pub mod run;
pub mod scope;
mod session;
pub mod snapshot;
mod taps;
pub mod thread;
pub mod times;
pub mod value;
mod value_path;
pub mod verdict;
pub mod wants;

#[cfg(test)]
mod computed_tests;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod flat_tests;
#[cfg(test)]
mod missed_tests;
#[cfg(test)]
mod nested_tests;
#[cfg(test)]
mod proportion_tests;
#[cfg(test)]
mod quiet_tests;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod thread_tests;

pub use attached::{
    ACTIVE, Active, attached, disable, disable_in_child, first_note, note, out_of_memory,
};
pub use frame::family_bit;
pub use keyed::{Keyed, keyed};
pub use parameters::Operand;
pub use patches::KeptValues;
pub use run::{OWN_RUNS, Run};
pub use scope::{Root, Scope};
pub use session::{News, OpenLines, Session};
pub use snapshot::Snapshot;
pub use value::{Token, ValueKind};
pub use value_path::{InnerScope, ValuePath};
pub use verdict::Verdict;
pub use wants::{ValueWants, Wants};
