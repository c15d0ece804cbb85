//! Where in a native program (C, C++, Rust) a thread is: return addresses while it runs, names and lines when somebody asks.
//!
//! [`Stack::here`] walks the thread's stack by its unwind tables, as an exception would, and keeps addresses only.
//! [`Modules::addresses`] says which file each address lies in, as long as that file is loaded; what is libtorch's, the
//! system's or ours is left out there. [`Symbols`] reads the debug information, or the symbol table, of those files. A
//! frame without unwind tables (generated code) ends the walk; a file without names leaves an offset.

mod functions;
mod modules;
mod separate;
mod source;
mod stack;
mod symbols;

pub use modules::Modules;
pub use source::SourceReader;
pub use stack::Stack;
pub use symbols::{Line, Symbols};
