//! Checks that a file of code, and each folder on the way to it, can have been written by this user and root only.
//!
//! A path is walked from the root, component by component, each opened below the descriptor of the one before. So every
//! check is of what is open, and nobody can put something else in its place between the check and the use.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;

/// The user as whom the kernel shows everybody whom a user namespace does not know, be it this process's own user.
const NOBODY: u32 = 65534;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Why something is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It is not there.
    Absent,
    /// It is not what it should be, or others could have written it. The text ends a sentence that begins with its path.
    Wrong(String),
    /// Reading failed, so nothing is known of the file. The text ends a sentence that begins with its path.
    Unreadable(String),
}

impl Unfit {
    /// The end of a sentence that begins with the path.
    pub fn why(&self) -> String {
        match self {
            Unfit::Absent => "is not there".into(),
            Unfit::Wrong(why) | Unfit::Unreadable(why) => why.clone(),
        }
    }
}

impl From<Errno> for Unfit {
    fn from(error: Errno) -> Unfit {
        match error {
            Errno::NOENT => Unfit::Absent,
            Errno::LOOP => Unfit::Wrong("is no ordinary file, but a link".into()),
            Errno::NOTDIR => Unfit::Wrong("lies in no folder".into()),
            Errno::ACCESS | Errno::PERM => Unfit::Wrong(cannot_be_read(error.into())),
            _ => Unfit::Unreadable(cannot_be_read(error.into())),
        }
    }
}

/// For an error of reading what is open already.
pub fn unreadable(why: std::io::Error) -> Unfit {
    Unfit::Unreadable(cannot_be_read(why))
}

fn cannot_be_read(why: std::io::Error) -> String {
    format!("cannot be read: {why}")
}

/// A folder in which only this user and root can make, rename and remove files. It belongs to one of the two, and so do all
/// folders above it. It is held open.
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// A file in such a folder that belongs to this user or root, and that nobody else can change.
pub struct Sound {
    /// Open for reading, at its beginning.
    pub file: File,
    folder: Folder,
    name: OsString,
}

impl Folder {
    /// Walks to the folder. A link on the way is followed only if, like each folder on the way, it is this user's or root's.
    ///
    /// # Errors
    ///
    /// What stands in the way, or who could have written there.
    pub fn open(path: &Path) -> Result<Folder, Unfit> {
        let path = std::path::absolute(path).map_err(unreadable)?;
        let mut walk = Walk::begin()?;
        walk.push(&path);
        while let Some(name) = walk.pending.pop_front() {
            walk.step(&name)?;
        }
        let (descriptor, found) = walk.passed.pop().ok_or(Unfit::Absent)?;
        check_others(&found).map_err(|why| Unfit::Wrong(at(&walk.path, &path, &why)))?;
        Ok(Folder {
            descriptor,
            path: walk.path,
        })
    }

    /// The folder's path without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of its files for reading, never through a link, and checks whose it is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn file(self, name: &OsStr) -> Result<Sound, Unfit> {
        let file = self.look_at(name)?;
        Ok(Sound {
            file,
            folder: self,
            name: name.to_os_string(),
        })
    }

    /// The same, for a caller that needs only the open file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn look_at(&self, name: &OsStr) -> Result<File, Unfit> {
        // Opening a pipe for reading would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = openat(&self.descriptor, name, flags, Mode::empty())?;
        check_file(&fstat(&descriptor)?).map_err(Unfit::Wrong)?;
        Ok(File::from(descriptor))
    }

    /// Opens one of its files for locking, which is made if need be; never through a link, and never a pipe.
    pub fn lock_file(&self, name: &OsStr) -> Option<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // A file that root made (after a sudo) can only be read by this user, which is enough to lock it.
        let descriptor = openat(
            &self.descriptor,
            name,
            OFlags::RDONLY | flags,
            Mode::empty(),
        )
        .or_else(|_| {
            let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
            openat(
                &self.descriptor,
                name,
                OFlags::WRONLY | OFlags::CREATE | flags,
                mode,
            )
        })
        .ok()?;
        let found = fstat(&descriptor).ok()?;
        is_kind(&found, FileType::RegularFile).then(|| File::from(descriptor))
    }
}

impl Sound {
    /// A path by which the dynamic linker opens this file in the folder that was checked, even if folders are renamed
    /// meanwhile. It ends with the file's own name, since frames of the adapter on a stack are recognised by that name.
    pub fn loadable(&self) -> PathBuf {
        let folder = PathBuf::from(format!(
            "/proc/self/fd/{}",
            self.folder.descriptor.as_raw_fd()
        ));
        // Without /proc (in a chroot) the plain path is used. All folders on it belong to this user or root.
        match folder.exists() {
            true => folder.join(&self.name),
            false => self.folder.path.join(&self.name),
        }
    }
}

/// A walk from the root on.
struct Walk {
    /// The folders that were passed, the present one last.
    passed: Vec<(OwnedFd, Stat)>,
    /// The path of the present one, without links.
    path: PathBuf,
    pending: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    fn begin() -> Result<Walk, Unfit> {
        let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&root)?;
        Ok(Walk {
            passed: vec![(root, found)],
            path: PathBuf::from("/"),
            pending: VecDeque::new(),
            links: 0,
        })
    }

    /// What `path` says comes next, before all that is pending.
    fn push(&mut self, path: &Path) {
        if path.is_absolute() {
            self.passed.truncate(1);
            self.path = PathBuf::from("/");
        }
        let names = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        for (place, name) in names.enumerate() {
            self.pending.insert(place, name);
        }
    }

    fn step(&mut self, name: &OsStr) -> Result<(), Unfit> {
        if name == ".." {
            if self.passed.len() > 1 {
                self.passed.pop();
                self.path.pop();
            }
            return Ok(());
        }
        let here = self.passed.last().ok_or(Unfit::Absent)?;
        let path = self.path.join(name);
        let refuse = |why: &str| {
            Err(Unfit::Wrong(format!(
                "lies below {}, which {why}",
                path.display()
            )))
        };
        // A user who can write to this folder could replace the next component of the path, unless the folder is sticky and
        // that component is trusted.
        if let Err(why) = check_passing(&here.1) {
            return Err(Unfit::Wrong(format!(
                "lies below {}, which {why}",
                self.path.display()
            )));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(&here.0, name, flags, Mode::empty())?;
        let found = fstat(&next)?;
        if let Err(why) = check_user(&found) {
            return refuse(&why);
        }
        if is_kind(&found, FileType::Symlink) {
            self.links += 1;
            if self.links > MOST_LINKS {
                return refuse("leads in a circle");
            }
            let target = readlinkat(&next, "", Vec::new())?;
            self.push(Path::new(&OsString::from_vec(target.into_bytes())));
            return Ok(());
        }
        if !is_kind(&found, FileType::Directory) {
            return refuse("is no folder");
        }
        self.passed.push((next, found));
        self.path = path;
        Ok(())
    }
}

/// The folder itself, or one on the way to it.
fn at(here: &Path, asked: &Path, why: &str) -> String {
    match here == asked {
        true => why.to_string(),
        false => format!("is {}, which {why}", here.display()),
    }
}

fn is_kind(found: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(found.st_mode) == kind
}

fn check_file(found: &Stat) -> Result<(), String> {
    if !is_kind(found, FileType::RegularFile) {
        return Err("is no ordinary file".into());
    }
    check_user(found)?;
    check_others(found)
}

fn check_user(found: &Stat) -> Result<(), String> {
    if found.st_uid != user() && found.st_uid != 0 {
        return Err(format!("belongs to another user ({})", found.st_uid));
    }
    let map = || std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    match found.st_uid != NOBODY || is_mapped(&map(), NOBODY) {
        true => Ok(()),
        false => Err(format!(
            "belongs to a user whom this user namespace does not know (shown as {NOBODY})"
        )),
    }
}

/// Whether a user namespace with this map (see user_namespaces(7)) knows the user.
fn is_mapped(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        user >= first && user - first < count
    })
}

fn check_passing(found: &Stat) -> Result<(), String> {
    const STICKY: u32 = 0o1000;
    match found.st_mode & STICKY != 0 {
        true => Ok(()),
        false => check_others(found),
    }
}

fn check_others(found: &Stat) -> Result<(), String> {
    let group = found.st_mode & 0o020 != 0 && !is_private_group(found);
    match group || found.st_mode & 0o002 != 0 {
        true => Err("can be written by other users".into()),
        false => Ok(()),
    }
}

/// Whether the group is this user's private group: many systems make one for each user, with the user's number and no other
/// member. Such systems use the umask 002, so that this group may write to all files of the user.
fn is_private_group(found: &Stat) -> bool {
    let user = user();
    if user == 0 || found.st_uid != user || found.st_gid != user {
        return false;
    }
    let groups = std::fs::read("/etc/group").unwrap_or_default();
    !groups.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let number = fields.nth(2).map(OsStr::from_bytes).and_then(OsStr::to_str);
        let members = fields.next().unwrap_or_default();
        number.is_some_and(|number| number.parse() == Ok(user)) && !members.is_empty()
    })
}

/// The user whose rights this process has.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
