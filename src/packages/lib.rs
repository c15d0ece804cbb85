//! What a package of AOTInductor's tells of the values that its model computes.
//!
//! A package has, beside the library of the model, the C++ source that it was compiled from. [`read`] takes the library's path,
//! reads that source, and gives a [`Package`]: the calls that the model makes in a run, in order, which of their arguments are
//! values afterwards, and the nodes that these values are. Names of the original model's come from a file that was put into
//! the package when it was compared with the program that it was compiled from ([`NAMES`]); without it, a value has the name
//! of the kernel that computes it.
//!
//! Nothing here knows libtorch, and nothing runs.
#![forbid(unsafe_code)]

mod calls;
#[cfg(test)]
mod example_tests;
mod names;
mod owners;
mod package;
mod text;
mod unreadable;

use std::path::Path;

pub use calls::{Call, How, Output};
pub use names::NAMES;
pub use package::{Node, Package, Scope, Shows, View};
pub use unreadable::Unreadable;

/// Reads the sources beside the library of a model.
///
/// # Errors
///
/// [`Unreadable`] if they are missing, or do not tell what the model's values are.
pub fn read(library: &Path) -> Result<Package, Unreadable> {
    let source = library.with_extension("cpp");
    let missing = || {
        let name = source.file_name().unwrap_or_default();
        Unreadable::NoSource(name.to_string_lossy().into_owned())
    };
    let text = std::fs::read(&source).map_err(|_| missing())?;
    let names = match std::fs::read(source.with_file_name(NAMES)) {
        Ok(file) => Some(names::parse(&file, &text)?),
        Err(_) => None,
    };
    let text = String::from_utf8_lossy(&text);
    let source = calls::source(&text)?;
    names::arrange(source, names)
}
