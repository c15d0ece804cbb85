//! Why the inside of a package cannot be seen.

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
