//! Starting programs with the library inside, and saying afterwards what happened in them.
//!
//! | file | owns |
//! |---|---|
//! | [`start`] | one program, from its name to its end |
//! | [`process`] | a child process, waited for; signals are passed on |
//! | [`batch`] | the same for many programs at a time |
//! | [`forks`] | a program that is forked for each of its runs |
//! | [`once`] | one of these, with its output and what it has reported |
//! | [`library`] | where `libgraphpatch.so` is |
//! | [`python`], [`python_package`] | the environment and the files by which Python programs tell of their modules |
//! | [`outputs`] | the files to be written, checked before anything starts |
//! | [`outcome`], [`kept`] | the reports of all its processes, as one, and what is saved of them |
//! | [`wanted`], [`telling`], [`summary`], [`failure`] | what the user wants to see, and what is said when the program has ended |

pub mod batch;
pub mod failure;
pub mod forks;
pub mod kept;
pub mod library;
pub mod once;
pub mod outcome;
pub mod outputs;
pub mod preload;
pub mod process;
pub mod python;
pub mod python_package;
pub mod start;
pub mod summary;
pub mod telling;
pub mod trace;
pub mod wanted;
