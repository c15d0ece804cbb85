//! The place of a call in native code, kept until somebody asks for its source line.

use std::path::Path;
use std::sync::Arc;

/// An address in a file of native code, as the file itself counts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CodeAddress {
    pub file: Arc<Path>,
    pub address: u64,
}
