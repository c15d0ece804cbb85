//! The data types of libgraphpatch: what a path, a tensor, a graph and a patch are.
//!
//! Owns the data that all other crates use, and everything that can be done with it outside of a running model: parsing,
//! checking, merging, printing, saving and loading. In come texts, files and recorded values; out go graphs, plans of patches
//! and errors. It knows neither libtorch nor CUDA nor an operating system, and has no unsafe code.
//!
//! | module | owns |
//! |---|---|
//! | [`path`] | NodePath, slice, names |
//! | [`layout`] | where the elements of strided tensors lie: regions, merging, broadcasting, overlap |
//! | [`tensor`] | tensors in host memory, numbers, and the files that they are read from |
//! | [`graph`] | nodes, shapes, tree text, code text, JSON, checks |
//! | [`patch`] | patch kinds, patch text and files, the plan |
//! | [`nested`] | JSON as deep as models nest |
//! | [`output`] | files that are written as a whole or not at all |
//! | [`whole`] | files that are read as a whole, and how much of them |
//! | [`plain`] | text from models, files and other programs, made safe for a terminal |
//! | [`error`] | the one error type |
//! | [`file_error`] | what the operating system says of a file, in words |
#![forbid(unsafe_code)]

#[macro_use]
mod as_text;
pub mod error;
mod fault;
pub mod file_error;
mod file_kind;
pub mod graph;
pub mod layout;
pub mod nested;
pub mod output;
pub mod patch;
pub mod path;
pub mod plain;
pub mod tensor;
pub mod whole;
mod work_folder;
