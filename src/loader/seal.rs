//! The seal of an adapter's file: a last line behind the ELF data, with a hash over all before it and the file's name.
//!
//! A file that was cut short, written over, stripped, renamed for another libtorch, or that is somebody else's has no
//! seal or one that does not fit, which shows before any of its code could run. It guards against accidents; against
//! other users the owner and mode of the cache do ([`super::cache`]).

use std::fs::OpenOptions;
use std::hash::Hasher;
use std::io::Write;
use std::path::Path;

use fnv::FnvHasher;

const MARK: &str = "graphpatch-adapter-seal 1 ";

/// Appends the seal for a file that is going to be called `name`, and sees it written to the disk.
///
/// # Errors
///
/// What reading or writing the file gave.
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
/// What is wrong with it, as the end of a sentence that begins with its path.
pub fn check(file: &Path) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|why| format!("cannot be read: {why}"))?;
    let (data, digits, name) =
        parse(&bytes).ok_or("is no adapter, or a damaged one: it has no seal")?;
    if format!("{:016x}", hash(data)).as_bytes() != digits {
        return Err("is damaged: its seal is that of other bytes".into());
    }
    let own = file.file_name().unwrap_or_default().as_encoded_bytes();
    if own != name {
        return Err(format!(
            "was renamed: it was built as {}",
            String::from_utf8_lossy(name)
        ));
    }
    Ok(())
}

/// The data, its hash's digits, the name.
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
        let broken = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("write");
            check(&file).expect_err("broken")
        };
        assert!(check(&file).expect_err("absent").contains("cannot be read"));
        for bytes in [&b""[..], b"\n", b"ELF\nand more\n", MARK.as_bytes()] {
            assert!(broken(bytes).contains("no seal"));
        }
        std::fs::write(&file, b"\x7fELF\nwhatever").expect("write");
        seal(&file, "adapter.so").expect("sealed");
        assert_eq!(check(&file), Ok(()));
        let whole = std::fs::read(&file).expect("read");
        for cut in 0..whole.len() {
            broken(&whole[..cut]);
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            broken(&changed);
        }
        let other = dir.path().join("other.so");
        std::fs::write(&other, &whole).expect("write");
        let why = check(&other).expect_err("renamed");
        assert!(why.contains("built as adapter.so"), "{why}");
    }
}
