//! The subcommands. Each takes its own flags and answers with an exit code.

pub mod attach;
pub mod bisect;
pub mod check;
pub mod complete;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod live;
pub mod mcp;
pub mod merge;
pub mod run;
pub mod serve;
pub mod show;
pub mod sweep;
pub mod view;
mod vllm;
