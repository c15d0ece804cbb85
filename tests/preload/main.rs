//! Preloaded programs are run as real processes, bare and under `graphpatch run`: what they print and how they end must
//! be the same. The programs are small and compiled here. None of them needs libtorch: a stand-in with its file name is enough
//! to see that the library finds it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod adapters;
mod command;
mod destinations;
mod disabled;
mod doctor;
mod ends;
mod loading;
mod lost;
mod many;
mod namespaces;
mod others;
mod outputs;
mod shop;
mod shown;
mod stand_ins;
mod strangers;
