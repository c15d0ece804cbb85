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
mod text;

use std::collections::BTreeMap;
use std::path::Path;

pub use calls::{Call, How, Output};
pub use names::NAMES;

/// Why the inside of a package cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("its package has no source `{0}` beside its library")]
    NoSource(String),
    #[error("its source has no function `run_impl`")]
    NoRun,
    #[error("its source calls no kernel by name")]
    NoCalls,
    #[error("its source has kernels that run under a condition or in a loop (`{0}`)")]
    Branches(String),
    #[error("the file `graphpatch_names.json` in its package does not fit: {0}")]
    Names(String),
}

/// A node of the model's graph that belongs to a call: a value that the call has computed, or one that was fused away.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The call's index.
    pub call: usize,
    /// The names of the scopes around it, and its own.
    pub path: Vec<String>,
    /// What computes it: an operator of the original model, or a kernel.
    pub target: String,
    pub shows: Shows,
}

/// What a node's value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Shows {
    /// All outputs of the call.
    All,
    /// One output. `sizes` are those of the node, if the tensor in memory has others; a negative number stands for a size of an
    /// input: see [`names`](crate::NAMES).
    One {
        output: usize,
        sizes: Option<Vec<i64>>,
    },
    /// No value: the text says where it went and which values are nearest.
    Nothing(String),
}

/// A module of the original model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub class_name: String,
    pub module_path: String,
}

/// The inside of one model.
#[derive(Debug, PartialEq)]
pub struct Package {
    pub class_name: String,
    pub inputs: Vec<String>,
    pub calls: Vec<Call>,
    /// In the order of their calls.
    pub nodes: Vec<Node>,
    scopes: BTreeMap<String, Scope>,
}

impl Package {
    /// What is known of the scope at this path.
    pub fn scope(&self, path: &[String]) -> Scope {
        let known = self.scopes.get(&path.join("."));
        known.cloned().unwrap_or_else(|| Scope {
            class_name: "Module".to_owned(),
            module_path: path.last().cloned().unwrap_or_default(),
        })
    }
}

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
