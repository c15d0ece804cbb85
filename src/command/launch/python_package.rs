//! The hook inside Python programs: a folder for the front of `PYTHONPATH` that holds only our `sitecustomize.py`, and
//! beside it the Python package, which `sitecustomize.py` loads when the program imports torch. Both are embedded here and
//! written once to the cache, next to the adapters. They are used only if no other user can have written any of them.

use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::hash::Hasher;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use graphpatch_core::error::{Error, Result};
use graphpatch_loader::cache;
use graphpatch_loader::trust::{Folder, Unfit};

use crate::voice::say;

/// The package's files, each with its path below the folder and its text; `build.rs` lists them.
const PACKAGE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/python_package.rs"));
const HOOK: (&str, &str) = (
    "site/sitecustomize.py",
    include_str!("python/sitecustomize.py"),
);

/// What a thread of the library's runs in a Python program that runs already.
const ATTACHED: (&str, &str) = ("attach/attached.py", include_str!("python/attached.py"));

fn files() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    [&HOOK, &ATTACHED].into_iter().chain(PACKAGE)
}

/// The folder for `PYTHONPATH`.
pub fn place(fallback: &Path) -> Result<PathBuf> {
    Ok(placed(fallback)?.join("site"))
}

/// The file for a Python program that runs already.
pub fn place_for_attached(fallback: &Path) -> Result<PathBuf> {
    Ok(placed(fallback)?.join(ATTACHED.0))
}

/// The folder with all files, in the cache, or below `fallback` (a private folder) where that cannot be used.
fn placed(fallback: &Path) -> Result<PathBuf> {
    let cached = cache::directory().and_then(|dir| place_in(&dir));
    cached.or_else(|why| {
        say(format!(
            "{why}; the Python package is written anew, for this run alone"
        ));
        place_in(fallback)
    })
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
    match check(&place) {
        Ok(()) => return Ok(place),
        Err(Unfit::Absent) => (),
        Err(why) => return Err(error(why.why())),
    }
    // The files are written to a temporary folder, which is then renamed. So no process sees a part of them. If several
    // processes do this at once, the rename of the first one counts, and those of the others fail.
    let write = || -> std::io::Result<()> {
        let work = tempfile::Builder::new()
            .prefix(".python-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(dir)?;
        for (name, text) in files() {
            let file = work.path().join(name);
            let folder = file.parent().unwrap_or(dir);
            // Whatever the umask, nobody else may write here.
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
            std::fs::write(&file, text)?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        }
        std::fs::set_permissions(work.path(), Permissions::from_mode(0o755))?;
        std::fs::rename(work.path(), &place)
    };
    match write() {
        Err(_) if check(&place).is_ok() => Ok(place),
        Err(why) => Err(error(why.to_string())),
        Ok(()) => Ok(place),
    }
}

/// Checks that all files are there with the embedded content, and no other file that Python would run, except those that
/// Python itself has compiled from them.
fn check(place: &Path) -> Result<(), Unfit> {
    let mut folders: Vec<PathBuf> = files()
        .filter_map(|(name, _)| Some(place.join(name).parent()?.to_path_buf()))
        .collect();
    folders.sort();
    folders.dedup();
    // If this folder is missing, all files count as absent. If only a part of it is missing, they count as damaged.
    Folder::open(place)?;
    let damaged = |what: &Path, why: &Unfit| {
        let what = what.strip_prefix(place).unwrap_or(what).display();
        Unfit::Wrong(format!("is damaged; remove it: {what} {}", why.why()))
    };
    for folder in &folders {
        let open = check_folder(place, folder).map_err(|(file, why)| damaged(&file, &why))?;
        for (name, text) in files() {
            let file = place.join(name);
            if file.parent() != Some(folder) {
                continue;
            }
            let other = || Unfit::Wrong("is another file".into());
            match holds(&open, file.file_name().unwrap_or_default(), text) {
                Ok(true) => (),
                Ok(false) => return Err(damaged(&file, &other())),
                Err(why) => return Err(damaged(&file, &why)),
            }
        }
    }
    Ok(())
}

/// Whether a file of an open folder has this text.
fn holds(folder: &Folder, name: &OsStr, text: &str) -> Result<bool, Unfit> {
    // With room for all of it, it is read at once.
    let mut found = Vec::with_capacity(text.len() + 1);
    let open = folder.look_at(name)?;
    open.take(text.len() as u64 + 1)
        .read_to_end(&mut found)
        .map_err(graphpatch_loader::trust::unreadable)?;
    Ok(found == text.as_bytes())
}

/// Checks that a folder of the package holds only ordinary files, and files that are not ours only in `__pycache__`. The
/// folder is returned open: the way to it is walked once, not again for each of its files.
fn check_folder(place: &Path, folder: &Path) -> Result<Folder, (PathBuf, Unfit)> {
    let fail = |why: Unfit| (folder.to_path_buf(), why);
    let open = Folder::open(folder).map_err(fail)?;
    let compiled = folder.file_name() == Some(OsStr::new("__pycache__"));
    let entries =
        std::fs::read_dir(folder).map_err(|why| fail(graphpatch_loader::trust::unreadable(why)))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        let is_ours = |below: &Path| files().any(|(file, _)| Path::new(file).starts_with(below));
        if path.strip_prefix(place).is_ok_and(is_ours) {
            continue;
        }
        if !compiled && name == "__pycache__" {
            check_folder(place, &path)?;
            continue;
        }
        let found = match compiled {
            true => open.look_at(name).map(drop),
            false => Err(Unfit::Wrong("is none of its files".into())),
        };
        found.map_err(|why| (path.clone(), why))?;
    }
    Ok(open)
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
        assert!(places.iter().all(|place| *place == places[0]) && check(&places[0]).is_ok());
        let left = std::fs::read_dir(dir.path()).expect("dir").count();
        assert_eq!(left, 1, "work folders are gone");
        std::fs::remove_file(places[0].join("libgraphpatch/errors.py")).expect("remove");
        assert!(place_in(dir.path()).is_err(), "a damaged one is not used");
        assert!(place_in(&dir.path().join("a:b")).is_err());
        assert!(place_in(&dir.path().join("absent")).is_err());
    }

    /// Every planted file is found, also one of the same length, or one in a place where Python looks for modules. Files that
    /// Python has compiled do not matter.
    #[test]
    fn what_was_planted_is_seen() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("dir");
        let place = place_in(dir.path()).expect("placed");
        let hook = place.join("site/sitecustomize.py");
        let whole = std::fs::read(&hook).expect("read");
        let put = |name: &str, bytes: &[u8]| {
            let file = place.join(name);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("dir");
            std::fs::write(&file, bytes).expect("write");
        };
        put(
            "site/__pycache__/sitecustomize.cpython-311.pyc",
            b"compiled",
        );
        assert_eq!(check(&place), Ok(()));
        let mut other = whole.clone();
        other[..5].copy_from_slice(b"evil#");
        let chmod = |name: &str, mode| {
            std::fs::set_permissions(place.join(name), Permissions::from_mode(mode))
                .expect("chmod");
        };
        type Plant<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
        let plants: [Plant<'_>; 6] = [
            (
                "another file",
                &|| put("site/sitecustomize.py", &other),
                &|| {
                    put("site/sitecustomize.py", &whole);
                },
            ),
            (
                "none of its files",
                &|| put("site/usercustomize.py", b""),
                &|| {
                    std::fs::remove_file(place.join("site/usercustomize.py")).expect("remove");
                },
            ),
            (
                "none of its files",
                &|| put("site/ctypes/__init__.py", b""),
                &|| {
                    std::fs::remove_dir_all(place.join("site/ctypes")).expect("remove");
                },
            ),
            ("other users", &|| chmod("libgraphpatch", 0o777), &|| {
                chmod("libgraphpatch", 0o755)
            }),
            ("other users", &|| chmod("site/__pycache__", 0o777), &|| {
                chmod("site/__pycache__", 0o755);
            }),
            (
                "but a link",
                &|| {
                    std::fs::write(dir.path().join("same.py"), &whole).expect("write");
                    std::fs::remove_file(&hook).expect("remove");
                    symlink(dir.path().join("same.py"), &hook).expect("link");
                },
                &|| {
                    std::fs::remove_file(&hook).expect("remove");
                    put("site/sitecustomize.py", &whole);
                },
            ),
        ];
        for (why, plant, undo) in plants {
            plant();
            let said = check(&place).expect_err(why).why();
            assert!(said.contains(why), "{why}: {said}");
            assert!(place_in(dir.path()).is_err(), "{why}: it is not taken");
            undo();
            assert_eq!(check(&place), Ok(()), "{why}");
        }
    }
}
