//! The one error type of the library. Every variant has one stable status number, which the C ABI hands out.

use std::path::PathBuf;

/// Everything that can go wrong, with what, where and what to do in its message. `make generate` writes the causes
/// and cures below into a page of the documentation, `docs/reference/errors.md`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Text that is no path, slice, patch or value.
    ///
    /// Cause: The text does not follow the grammar of paths, slices and patches.
    ///
    /// Cure: Look at the character that the message names. Put a patch in single quotes, so that the shell leaves its
    /// brackets alone.
    #[error("{what} {text:?}: {why} (at character {at})")]
    Parse {
        what: &'static str,
        text: String,
        at: usize,
        why: String,
    },
    /// One or more paths that name no leaf of the graph; the text lists all of them with completions.
    ///
    /// Cause: A name is mistyped, the path ends at a scope or a container, or the model never came to that node.
    ///
    /// Cure: Take one of the nearest names of the message. `graphpatch show GRAPH` and `graphpatch complete GRAPH
    /// PREFIX` list what there is.
    #[error("{0}")]
    Path(String),
    /// A slice that does not fit a tensor's shape.
    ///
    /// Cause: The value has fewer dimensions than the slice, or an index is out of range for the shape.
    ///
    /// Cure: Compare the slice with the shape in the message; `...` stands for all dimensions that are not named.
    #[error("slice {slice} does not fit shape ({}): {why}", join(shape))]
    Slice {
        slice: String,
        shape: Vec<i64>,
        why: String,
    },
    /// A patch that a value refuses (its dtype, its layout).
    ///
    /// Cause: The value's dtype or layout cannot take what the patch wants, as PyTorch would refuse it too.
    ///
    /// Cure: Give a value of a dtype that converts, or use a custom patch, which gets libtorch's own tensor.
    #[error("{0}")]
    Refused(String),
    /// A file that cannot be read or written.
    ///
    /// Cause: The file or its folder is missing, or may not be read or written.
    ///
    /// Cure: Do what the message says of the file: make the folder, or choose another place.
    #[error("{}: {why}", .file.display())]
    File { file: PathBuf, why: String },
    /// A file that is damaged, foreign or of a later version; `place` is where in the file.
    ///
    /// Cause: The file was cut off or changed, comes from another program, or from a later version.
    ///
    /// Cure: Look at the place that the message names. Make the file anew, or use the version that wrote it.
    #[error("{}: {place}: {why}", .file.display())]
    Format {
        file: PathBuf,
        place: String,
        why: String,
    },
    /// No libtorch in this process, or one that cannot be used.
    ///
    /// Cause: The process has no libtorch, or one outside of the supported range.
    ///
    /// Cure: Load libtorch before the call. `graphpatch doctor -- PROGRAM` says which one a program has and which are
    /// supported.
    #[error("{0}")]
    Torch(String),
    /// The adapter could not be found, built or loaded.
    ///
    /// Cause: There is no C++ compiler, no headers of this libtorch, or the adapter's file was changed.
    ///
    /// Cure: `graphpatch doctor -- PROGRAM` says what is missing. `graphpatch doctor --build` makes the adapter, on
    /// another machine if need be.
    #[error("{0}")]
    Adapter(String),
    /// A call that is not valid in the present state.
    ///
    /// Cause: A call came too early, too late, or twice: a run that is not open, a patch that was removed; or two threads
    /// at once changed an object of C's that one at a time may use.
    ///
    /// Cure: The message names what is missing. The header says of each call what must come before it.
    #[error("{0}")]
    State(String),
    /// A NULL or malformed argument.
    ///
    /// Cause: A pointer is NULL, an object was freed or is of another type, a text is no UTF-8, or a number is out of range.
    ///
    /// Cure: Correct the argument that the message names.
    #[error("argument {name}: {why}")]
    Argument { name: &'static str, why: String },
    /// A bug of this library, caught before it reached the caller.
    ///
    /// Cause: A fault of libgraphpatch.
    ///
    /// Cure: Please report it, with the message and what led to it.
    #[error("internal error: {0}")]
    Internal(String),
}

fn join(sizes: &[i64]) -> String {
    let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
    sizes.join(", ")
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
