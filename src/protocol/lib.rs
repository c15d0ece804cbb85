//! What the command and the processes that it starts tell each other, by files in a private folder.
//!
//! Owns the formats: [`Options`] goes in (written by the command, read by the preloaded library, which finds the file by
//! [`OPTIONS_VARIABLE`]; a process that runs already is given an [`attach::Attach`] instead); a [`Report`] comes out of each process (written by the library, read by the command). The lines that
//! go through the socket of a process that listens are those of [`live`].
#![forbid(unsafe_code)]

pub mod attach;
pub mod live;
pub mod lost;
pub mod options;
pub mod report;
pub mod seal;
pub mod trace;

pub use lost::Lost;
pub use options::{OPTIONS_VARIABLE, Operations, Options};
pub use report::{PatchReport, Report};
