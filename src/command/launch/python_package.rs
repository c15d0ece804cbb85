//! The hook inside Python programs: a folder for the front of `PYTHONPATH` that holds nothing but our `sitecustomize.py`,
//! and beside it the Python package, which that loads when the program imports torch. Both are embedded here and written
//! once to the cache, next to the adapters.

use std::hash::Hasher;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use graphpatch_core::error::{Error, Result};
use graphpatch_loader::cache;

/// The package's files, each with its path below the folder and its text; `build.rs` lists them.
const PACKAGE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/python_package.rs"));
const HOOK: (&str, &str) = (
    "site/sitecustomize.py",
    include_str!("python/sitecustomize.py"),
);

fn files() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    std::iter::once(&HOOK).chain(PACKAGE)
}

/// The folder for `PYTHONPATH`, in the cache, or below `fallback` where that cannot be used.
pub fn place(fallback: &Path) -> Result<PathBuf> {
    let cached = cache::directory().and_then(|dir| place_in(&dir));
    let placed = cached.or_else(|_| place_in(fallback))?;
    Ok(placed.join("site"))
}

fn place_in(dir: &Path) -> Result<PathBuf> {
    let place = dir.join(format!("python-{:016x}", hash()));
    let error = |why: String| Error::File {
        file: place.clone(),
        why,
    };
    if place.as_os_str().as_encoded_bytes().contains(&b':') {
        return Err(error("PYTHONPATH takes no folder with a colon".into()));
    }
    if is_complete(&place) {
        return Ok(place);
    }
    // Written beside it and renamed: others never see half of it, and of several that start at once one wins.
    let write = || -> std::io::Result<()> {
        let work = tempfile::Builder::new()
            .prefix(".python-")
            .tempdir_in(dir)?;
        for (name, text) in files() {
            let file = work.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(dir))?;
            std::fs::write(file, text)?;
        }
        std::fs::rename(work.path(), &place)
    };
    match write() {
        Err(_) if is_complete(&place) => Ok(place),
        Err(why) => Err(error(why.to_string())),
        Ok(()) => Ok(place),
    }
}

fn is_complete(place: &Path) -> bool {
    let is_there = |(name, text): &(&str, &str)| {
        place
            .join(name)
            .metadata()
            .is_ok_and(|file| file.len() == text.len() as u64)
    };
    files().all(is_there)
}

fn hash() -> u64 {
    let mut hash = FnvHasher::default();
    for part in files().flat_map(|(name, text)| [name, text]) {
        hash.write(&(part.len() as u64).to_le_bytes());
        hash.write(part.as_bytes());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_whole() {
        for name in ["__init__", "_header", "_library", "_outermost"] {
            let name = format!("libgraphpatch/{name}.py");
            assert!(PACKAGE.iter().any(|(listed, _)| *listed == name), "{name}");
        }
    }

    #[test]
    fn it_is_placed_once_and_by_one() {
        let dir = tempfile::tempdir().expect("dir");
        let places: Vec<PathBuf> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| place_in(dir.path()).expect("placed")))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().expect("thread"))
                .collect()
        });
        assert!(places.iter().all(|place| *place == places[0]) && is_complete(&places[0]));
        let left = std::fs::read_dir(dir.path()).expect("dir").count();
        assert_eq!(left, 1, "work folders are gone");
        std::fs::remove_file(places[0].join("libgraphpatch/errors.py")).expect("remove");
        assert!(place_in(dir.path()).is_err(), "a damaged one is not used");
        assert!(place_in(&dir.path().join("a:b")).is_err());
        assert!(place_in(&dir.path().join("absent")).is_err());
    }
}
