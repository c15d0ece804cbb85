//! The adapter's C++ source, embedded by `pack.rs`. `adapter.cpp` is the one translation unit; it includes the others.

use graphpatch_core::error::{Error, Result};

/// The file that is compiled.
pub const MAIN: &str = "adapter/adapter.cpp";

mod packed {
    include!(concat!(env!("OUT_DIR"), "/sources.rs"));
}

/// The texts of all files, one after another.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sources.deflate"));

/// The seam's version, as `seam.h` has it.
pub const SEAM_VERSION: &str = env!("GRAPHPATCH_SEAM");

/// A hash over all files, so that a changed source makes another adapter.
pub const HASH: &str = env!("GRAPHPATCH_SOURCES");

/// Every file of the adapter: its path below `src/torch`, and its text.
pub fn files() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let bad = || Error::Internal("the adapter's source is damaged".into());
    let mut rest = miniz_oxide::inflate::decompress_to_vec(PACKED).map_err(|_| bad())?;
    let mut files = Vec::new();
    for (name, length) in packed::FILES {
        if rest.len() < *length {
            return Err(bad());
        }
        let behind = rest.split_off(*length);
        files.push((*name, std::mem::replace(&mut rest, behind)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fnv::FnvHasher;
    use std::hash::Hasher;

    /// The names and seals of adapters in users' caches contain hashes of this kind, so the algorithm must not change.
    #[test]
    fn the_hash_is_the_published_one() {
        let mut hash = FnvHasher::default();
        hash.write(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8);
        let mut hash = FnvHasher::default();
        for (name, text) in files().unwrap() {
            for part in [name.as_bytes(), &text] {
                hash.write(&(part.len() as u64).to_le_bytes());
                hash.write(part);
            }
        }
        assert_eq!(format!("{:016x}", hash.finish()), HASH);
    }

    #[test]
    fn sources_are_complete() {
        assert!(SEAM_VERSION.parse::<u32>().unwrap() > 0);
        let files = files().unwrap();
        assert!(files.iter().any(|(name, _)| *name == MAIN));
        let torch = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../torch");
        let mut folders = vec![torch.join("adapter")];
        let mut there = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    there += 1;
                }
            }
        }
        for (name, text) in files {
            assert_eq!(std::fs::read(torch.join(name)).unwrap(), text, "{name}");
            there -= i32::from(name.starts_with("adapter/"));
        }
        assert_eq!(there, 0);
    }
}
