//! Files that are written as a whole or not at all: a new file is written beside the old one and takes its place when it is
//! complete.

use std::fs::{File, Permissions};
use std::io::{Error, Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::work_folder::WorkFolder;

/// The most symbolic links that are followed one after the other, as in the kernel.
const MOST_LINKS: usize = 40;

/// Where bytes for a path are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A pipe, a device, or a file that a process has open (`/dev/stdout`): bytes are appended to it.
    Stream(PathBuf),
    /// A regular file, which a new one replaces, or a name that is still free. Symbolic links to it are followed and stay as
    /// they are.
    File(PathBuf),
}

impl Destination {
    pub fn of(path: &Path) -> Destination {
        let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let mut at = path.to_owned();
        for _ in 0..MOST_LINKS {
            if is_special || is_descriptor(&at) {
                return Destination::Stream(path.to_owned());
            }
            let Ok(target) = std::fs::read_link(&at) else {
                break;
            };
            at = folder_of(&at).join(target);
        }
        Destination::File(at)
    }
}

/// Whether the path is one of the kernel's names for a file that a process has open. The process would never read a file that
/// replaced it.
fn is_descriptor(path: &Path) -> bool {
    path.is_symlink()
        && folder_of(path)
            .canonicalize()
            .is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
}

/// The folder that a file lies in, or would.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes the file as a whole or not at all. The permissions of an old file are kept.
///
/// # Errors
///
/// Those of making, writing and renaming files; an old file is then unchanged.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    match Destination::of(path) {
        Destination::Stream(stream) => open_stream(&stream)?.write_all(bytes),
        Destination::File(file) => replace_file(&file, |new| std::fs::write(new, bytes)),
    }
}

/// The same for content that `write` writes to the path that it is given.
///
/// # Errors
///
/// As [`replace`], and what `write` says.
pub fn replace_with(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    match Destination::of(path) {
        Destination::File(file) => replace_file(&file, write),
        Destination::Stream(stream) => {
            let folder = WorkFolder::new_in(&std::env::temp_dir())?;
            let whole = folder.path().join("whole");
            write(&whole)?;
            std::io::copy(&mut File::open(&whole)?, &mut open_stream(&stream)?).map(drop)
        }
    }
}

fn open_stream(stream: &Path) -> Result<File> {
    File::options().append(true).open(stream)
}

fn replace_file(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if file.is_symlink() {
        return Err(as_file_error("its symbolic links lead nowhere"));
    }
    // The new file has a folder of its own, so that a half-written file is removed with it when the disk is full. Nobody else
    // can read the new file before it has the permissions of the old one.
    let part = WorkFolder::new_in(folder_of(file))?;
    let new = part.path().join("new");
    write(&new)?;
    let mode = match std::fs::metadata(file) {
        Ok(old) => old.permissions(),
        Err(_) => ordinary_permissions(part.path())?,
    };
    std::fs::set_permissions(&new, mode)?;
    std::fs::rename(&new, file)
}

/// The permissions that an ordinary new file gets: the umask is applied to them.
fn ordinary_permissions(folder: &Path) -> Result<Permissions> {
    let mode = File::create(folder.join("ordinary"))?
        .metadata()?
        .permissions()
        .mode();
    Ok(Permissions::from_mode(mode & 0o777))
}

/// Turns an error of another library into an I/O error.
pub fn as_file_error(why: impl std::fmt::Display) -> Error {
    Error::other(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(file: &Path) -> u32 {
        std::fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn links_stay_and_their_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("deep")).unwrap();
        symlink("deep/middle", at("link")).unwrap();
        symlink("../file", at("deep/middle")).unwrap();
        for text in ["first", "second"] {
            replace(&at("link"), text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(at("file")).unwrap(), text);
            assert!(at("link").is_symlink() && at("deep/middle").is_symlink());
        }
        assert_eq!(
            Destination::of(&at("link")),
            Destination::File(at("deep/../file"))
        );
        symlink("circle", at("circle")).unwrap();
        assert!(replace(&at("circle"), b"").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn permissions_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("file"), dir.path().join("other"));
        std::fs::write(&other, "").unwrap();
        replace(&file, b"1").unwrap();
        assert_eq!(mode(&file), mode(&other), "an ordinary new file's");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        replace(&file, b"2").unwrap();
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_made_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "old").unwrap();
        let half = |new: &Path| {
            std::fs::write(new, "half")?;
            Err(as_file_error("the disk is full"))
        };
        let why = replace_with(&file, half).unwrap_err().to_string();
        assert_eq!(why, "the disk is full");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_open_is_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let open = File::options()
            .append(true)
            .create(true)
            .open(&file)
            .unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        let link = dir.path().join("link");
        symlink(&name, &link).unwrap();
        for path in [Path::new(&name), &link] {
            assert!(matches!(Destination::of(path), Destination::Stream(_)));
            replace(path, b"1").unwrap();
            replace_with(path, |new| std::fs::write(new, b"2")).unwrap();
        }
        (&open).write_all(b"end").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1212end");
    }
}
