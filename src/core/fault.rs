//! Why the readers of this crate refuse a file, before the file's name is added.

use std::path::Path;

use crate::error::Error;

/// Where in a file something is wrong, and what.
#[derive(Debug)]
pub(crate) struct Fault {
    pub place: String,
    pub why: String,
}

impl Fault {
    pub fn at(place: impl Into<String>, why: impl Into<String>) -> Fault {
        Fault {
            place: place.into(),
            why: why.into(),
        }
    }

    /// The error for this file.
    pub fn of(self, file: &Path) -> Error {
        Error::Format {
            file: file.to_owned(),
            place: self.place,
            why: self.why,
        }
    }
}
