//! What the command and the processes that it starts tell each other, by files in a private folder.
//!
//! Owns the formats. [`Options`] goes in: the command writes it, and the preloaded library, which finds the file by
//! [`OPTIONS_VARIABLE`], reads it. A process that runs already is given an [`attach::Attach`] instead. A [`Report`] comes out of
//! each process: the library writes it, and the command reads it. The lines that go through the socket of a process that listens
//! are those of [`live`]. A process that is forked for each run of a sweep meets the command by the files of [`forks`].
#![forbid(unsafe_code)]

pub mod attach;
pub mod forks;
pub mod live;
pub mod lost;
pub mod options;
pub mod report;
pub mod seal;
pub mod trace;

pub use lost::Lost;
pub use options::{OPTIONS_FILE, OPTIONS_VARIABLE, Operations, Options};
pub use report::{PatchReport, Report};
