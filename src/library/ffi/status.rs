//! Statuses: one stable number per kind of error.

use graphpatch_core::error::Error;

/// What a call answers. Numbers never change their meaning; new ones may come. Since 0.1.0.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All went well.
    Ok = 0,
    /// An argument is NULL, no UTF-8, out of range, or an object that was freed or is of another type.
    Argument = 1,
    /// Text that is no path, slice, patch or value.
    Parse = 2,
    /// A path that names no leaf of the recorded graphs.
    Path = 3,
    /// A slice that does not fit a shape.
    Slice = 4,
    /// A patch that a value refuses.
    Refused = 5,
    /// A file that cannot be read or written.
    File = 6,
    /// A file that is damaged, foreign, or of a later version.
    Format = 7,
    /// No libtorch in this process, or one that cannot be used.
    Torch = 8,
    /// The adapter for this libtorch could not be found, built or loaded.
    Adapter = 9,
    /// A call that is not valid now.
    State = 10,
    /// A bug of the library, caught.
    Internal = 99,
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Status {
        match error {
            Error::Argument { .. } => Status::Argument,
            Error::Parse { .. } => Status::Parse,
            Error::Path(_) => Status::Path,
            Error::Slice { .. } => Status::Slice,
            Error::Refused(_) => Status::Refused,
            Error::File { .. } => Status::File,
            Error::Format { .. } => Status::Format,
            Error::Torch(_) => Status::Torch,
            Error::Adapter(_) => Status::Adapter,
            Error::State(_) => Status::State,
            Error::Internal(_) => Status::Internal,
        }
    }
}
