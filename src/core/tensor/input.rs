//! An open file that a tensor is read from: what the readers of all formats share.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::file_error::unreadable;

/// Opens a file and gives its length. Only regular files are taken: others could block, or give their bytes only once.
pub(super) fn open(file: &Path) -> Result<(File, u64)> {
    let meta = std::fs::metadata(file).map_err(|why| unreadable(file, &why))?;
    if !meta.is_file() {
        return Err(Error::File {
            file: file.to_owned(),
            why: "is not a regular file".to_owned(),
        });
    }
    let opened = File::open(file).map_err(|why| unreadable(file, &why))?;
    Ok((opened, meta.len()))
}

/// Reads exactly what should come next.
pub(super) fn fill(reader: &mut impl Read, bytes: &mut [u8], place: &str) -> Result<(), Fault> {
    reader
        .read_exact(bytes)
        .map_err(|why| Fault::at(place, why.to_string()))
}
