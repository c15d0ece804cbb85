//! The value of `LD_PRELOAD`. It is written such that programs of another C library (musl) run as without it.
//!
//! musl's dynamic linker loads every listed library that exists, and ends the program if the library does not fit; it skips
//! files that do not exist. glibc's replaces `$LIB` by the name of its library folder; musl's does not know `$LIB`. So the path
//! contains `$LIB`, in a folder that has a link for each name that glibc may put there: only glibc finds the library.

use std::ffi::{OsStr, OsString};
use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use graphpatch_loader::cache;
use graphpatch_loader::trust::Folder;

/// The names that glibc may use for `$LIB`, depending on the distribution.
fn folders() -> [String; 3] {
    let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    ["lib64".into(), "lib".into(), multiarch]
}

/// The library's entry in the list: a path through permanent links in the cache directory, or its plain path if there
/// cannot be such links.
pub fn entry(library: &Path) -> OsString {
    let linked = cache::directory()
        .ok()
        .and_then(|dir| linked(&dir, library));
    linked.unwrap_or_else(|| library.into()).into_os_string()
}

fn linked(dir: &Path, library: &Path) -> Option<PathBuf> {
    let (folder, name) = (library.parent()?, library.file_name()?);
    let mut hash = FnvHasher::default();
    hash.write(folder.as_os_str().as_bytes());
    let place = dir.join(format!("preload-{:016x}", hash.finish()));
    if splits(place.as_os_str()) || splits(name) {
        return None;
    }
    for each in folders() {
        let link = place.join(each).join("graphpatch");
        std::fs::create_dir_all(link.parent()?).ok()?;
        match symlink(folder, &link) {
            Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return None,
            _ => (),
        }
        // A link that another user could have made, or that leads elsewhere, is not used.
        let real = |path: &Path| Some(Folder::open(path).ok()?.path().to_path_buf());
        if folder.canonicalize().ok() != real(&link) {
            return None;
        }
    }
    Some(place.join("$LIB/graphpatch").join(name))
}

/// Whether the path has a character that the dynamic linker does not take literally: it splits the list at spaces and
/// colons, and replaces names that begin with `$`.
fn splits(path: &OsStr) -> bool {
    path.as_bytes()
        .iter()
        .any(|byte| matches!(byte, b' ' | b':' | b'$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_the_library() {
        let dir = tempfile::tempdir().expect("dir");
        let (cache, library) = (dir.path().join("cache"), dir.path().join("lib.so"));
        std::fs::create_dir(&cache).expect("dir");
        std::fs::write(&library, "").expect("write");
        let entry = linked(&cache, &library).expect("linked");
        assert_eq!(linked(&cache, &library), Some(entry.clone()), "once more");
        let entry = entry.to_string_lossy();
        for name in folders() {
            let path = PathBuf::from(entry.replace("$LIB", &name));
            assert_eq!(
                path.canonicalize().ok(),
                library.canonicalize().ok(),
                "{name}"
            );
        }
        assert!(!Path::new(&*entry).exists(), "what musl looks for");
        assert_eq!(linked(&dir.path().join("a b"), &library), None);
        assert_eq!(linked(Path::new("/proc"), &library), None);
    }
}
