//! The one error type of the library. Every variant has one stable status number, which the C ABI hands out.

use std::path::PathBuf;

/// Everything that can go wrong, with what, where and what to do in its message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Text that is no path, slice, patch or value.
    #[error("{what} {text:?}: {why} (at character {at})")]
    Parse {
        what: &'static str,
        text: String,
        at: usize,
        why: String,
    },
    /// One or more paths that name no leaf of the graph; the text lists all of them with completions.
    #[error("{0}")]
    Path(String),
    /// A slice that does not fit a tensor's shape.
    #[error("slice {slice} does not fit shape ({}): {why}", join(shape))]
    Slice {
        slice: String,
        shape: Vec<i64>,
        why: String,
    },
    /// A patch that a value refuses (its dtype, its layout).
    #[error("{0}")]
    Refused(String),
    /// A file that cannot be read or written.
    #[error("{}: {why}", .file.display())]
    File { file: PathBuf, why: String },
    /// A file that is damaged, foreign or of a later version; `place` is where in the file.
    #[error("{}: {place}: {why}", .file.display())]
    Format {
        file: PathBuf,
        place: String,
        why: String,
    },
    /// No libtorch in this process, or one that cannot be used.
    #[error("{0}")]
    Torch(String),
    /// The adapter could not be found, built or loaded.
    #[error("{0}")]
    Adapter(String),
    /// A call that is not valid in the present state.
    #[error("{0}")]
    State(String),
    /// A NULL or malformed argument.
    #[error("argument {name}: {why}")]
    Argument { name: &'static str, why: String },
    /// A bug of ours, caught at the edge.
    #[error("internal error: {0}")]
    Internal(String),
}

fn join(sizes: &[i64]) -> String {
    let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
    sizes.join(", ")
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
