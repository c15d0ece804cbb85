//! The seal of an adapter's file: a last line after the ELF data, with a hash over all before it and the file's name.
//!
//! A file that was cut short, overwritten, stripped or renamed for another libtorch has no seal, or one that does not fit.
//! So it is refused before any of its code runs. The seal guards against accidents only. Against other users, the owner
//! and mode of the folder are checked ([`super::trust`]).

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io::{Read, Write};
use std::path::Path;

use fnv::FnvHasher;

use super::trust::{Unfit, unreadable};

const MARK: &str = "graphpatch-adapter-seal 1 ";

/// Appends the seal to a file that is going to be called `name`, and waits until the file is on the disk.
///
/// # Errors
///
/// Reading or writing the file failed.
pub fn seal(file: &Path, name: &str) -> std::io::Result<()> {
    let bytes = std::fs::read(file)?;
    let mut open = OpenOptions::new().append(true).open(file)?;
    write!(open, "\n{MARK}{:016x} {name}\n", hash(&bytes))?;
    open.sync_all()
}

/// Whether a file is what was sealed, under the name that it has.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(file: &mut File, own: &OsStr) -> Result<(), Unfit> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    check_bytes(&bytes, own.as_encoded_bytes()).map_err(Unfit::Wrong)
}

fn check_bytes(bytes: &[u8], own: &[u8]) -> Result<(), String> {
    let (data, digits, name) =
        parse(bytes).ok_or("is no adapter, or a damaged one: it has no seal")?;
    if format!("{:016x}", hash(data)).as_bytes() != digits {
        return Err("is damaged: its seal is that of other bytes".into());
    }
    if own != name {
        return Err(format!(
            "was renamed: it was built as {}",
            String::from_utf8_lossy(name)
        ));
    }
    Ok(())
}

/// Splits a sealed file into its data, the digits of the hash, and the name.
fn parse(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let body = bytes.strip_suffix(b"\n")?;
    let start = body.iter().rposition(|byte| *byte == b'\n')?;
    let line = body[start + 1..].strip_prefix(MARK.as_bytes())?;
    let (digits, name) = line.split_at_checked(16)?;
    Some((&body[..start], digits, name.strip_prefix(b" ")?))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = FnvHasher::default();
    hash.write(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sealed_bytes_pass() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("adapter.so");
        let check = |bytes: &[u8]| check_bytes(bytes, b"adapter.so");
        for bytes in [&b""[..], b"\n", b"ELF\nand more\n", MARK.as_bytes()] {
            assert!(check(bytes).expect_err("broken").contains("no seal"));
        }
        std::fs::write(&file, b"\x7fELF\nwhatever").expect("write");
        seal(&file, "adapter.so").expect("sealed");
        let mut open = File::open(&file).expect("open");
        assert_eq!(super::check(&mut open, OsStr::new("adapter.so")), Ok(()));
        let whole = std::fs::read(&file).expect("read");
        for cut in 0..whole.len() {
            check(&whole[..cut]).expect_err("cut");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            check(&changed).expect_err("changed");
        }
        let why = check_bytes(&whole, b"other.so").expect_err("renamed");
        assert!(why.contains("built as adapter.so"), "{why}");
    }
}
