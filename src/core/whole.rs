//! Files that are read as a whole, up to a size: a device or a pipe may have no end.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file_error;

/// The most bytes that are read from a file on a disk.
const MOST_OF_FILE: u64 = 4 << 30;
/// The most bytes that are read from a pipe or a device.
const MOST_OF_STREAM: u64 = 256 << 20;

/// All that is in the file.
///
/// # Errors
///
/// [`Error::File`]: it cannot be read, or is larger than the limit.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    let fail = |why: String| Error::File {
        file: file.to_owned(),
        why,
    };
    let unreadable = |why: std::io::Error| file_error::unreadable(file, &why);
    let mut opened = File::open(file).map_err(unreadable)?;
    let found = opened.metadata().map_err(unreadable)?;
    let most = match found.is_file() {
        true => MOST_OF_FILE,
        false => MOST_OF_STREAM,
    };
    let too_much = || {
        fail(format!(
            "has more than {} MiB, which is the limit",
            most >> 20
        ))
    };
    if found.len() > most {
        return Err(too_much());
    }
    read_at_most(&mut opened, found.len(), most)
        .map_err(unreadable)?
        .ok_or_else(too_much)
}

/// All bytes of the reader, or `None` if there are more than `most`.
fn read_at_most(
    reader: &mut impl Read,
    expected: u64,
    most: u64,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    bytes.try_reserve(usize::try_from(expected).unwrap_or(usize::MAX))?;
    let read = reader.take(most + 1).read_to_end(&mut bytes)?;
    Ok((read as u64 <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        let mut endless = std::io::repeat(b'x');
        assert_eq!(read_at_most(&mut endless, 0, 1000).expect("read"), None);
        let exact = read_at_most(&mut &b"abc"[..], 3, 3).expect("read");
        assert_eq!(exact.as_deref(), Some(&b"abc"[..]));
        assert_eq!(read_at_most(&mut &b"abc"[..], 3, 2).expect("read"), None);
        let why = read(Path::new("/dev/zero"))
            .expect_err("endless")
            .to_string();
        assert!(
            why.contains("256 MiB") && why.contains("/dev/zero"),
            "{why}"
        );
        assert_eq!(read(Path::new("/dev/null")).expect("empty"), b"");
    }

    #[test]
    fn a_file_with_nothing_behind_it_is_not_read() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("sparse");
        let file = File::create(&path).expect("made");
        if file.set_len(MOST_OF_FILE + 1).is_ok() {
            let why = read(&path).expect_err("too much").to_string();
            assert!(why.contains("4096 MiB"), "{why}");
        }
        std::fs::write(&path, "text").expect("write");
        assert_eq!(read(&path).expect("read"), b"text");
    }
}
