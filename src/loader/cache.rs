//! Where built adapters are kept, and what they are called: one file per adapter source and libtorch build.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::trust::{Folder, user};
use super::{Libtorch, environment, sources};
use graphpatch_core::error::{Error, Result};

/// The file name of the adapter for `libtorch`: `adapter-s<seam>-<source hash>-torch2.11.0-<build id>-cxx11.so`. Adapters
/// under all other names are for another libtorch or of another source.
pub fn file_name(libtorch: &Libtorch) -> String {
    Name::of(libtorch).to_string()
}

/// How many adapters in `dir` are of another source than ours: left by other versions of libgraphpatch.
pub fn outdated(dir: &Path) -> usize {
    let ours = format!("s{}-{}", sources::SEAM_VERSION, sources::HASH);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Name::parse(&entry.path()))
        .filter(|name| name.source != ours)
        .count()
}

/// What the name of an adapter's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The seam's version and the hash over the adapter's source.
    pub source: String,
    /// The version of the libtorch that it was built for.
    pub version: String,
    /// That libtorch's build id.
    pub build_id: String,
    /// `cxx11` or `pre11`.
    pub abi: String,
}

impl Name {
    /// The name of the adapter that `libtorch` needs.
    pub fn of(libtorch: &Libtorch) -> Name {
        let plain = |text: &str| -> String {
            text.chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+') {
                        c
                    } else {
                        '_'
                    }
                })
                .collect()
        };
        Name {
            source: format!("s{}-{}", sources::SEAM_VERSION, sources::HASH),
            version: plain(&libtorch.version),
            build_id: plain(&libtorch.build_id),
            abi: if libtorch.cxx11_abi { "cxx11" } else { "pre11" }.into(),
        }
    }

    /// The name of the file at `path`, if it is one of an adapter.
    pub fn parse(path: &Path) -> Option<Name> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".so")?;
        let mut parts = stem.strip_prefix("adapter-")?.split('-');
        let mut next = || parts.next().map(str::to_string);
        let name = Name {
            source: format!("{}-{}", next()?, next()?),
            version: next()?.strip_prefix("torch")?.into(),
            build_id: next()?,
            abi: next()?,
        };
        next().is_none().then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Name {
            source,
            version,
            build_id,
            abi,
        } = self;
        write!(f, "adapter-{source}-torch{version}-{build_id}-{abi}.so")
    }
}

/// The directory in which adapters are cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirectory {
    /// It exists, and files can be made in it.
    pub path: PathBuf,
    /// Why it is not the user's ordinary one, where that is so.
    pub why_elsewhere: Option<String>,
}

/// The path of the cache directory, which is created if need be.
///
/// # Errors
///
/// See [`choose`].
pub fn directory() -> Result<PathBuf> {
    choose().map(|chosen| chosen.path)
}

/// The cache directory, created if need be: `$GRAPHPATCH_CACHE`, `$XDG_CACHE_HOME/graphpatch`, `~/.cache/graphpatch`,
/// else a directory of this user alone under the temporary one. One that other users could write to is not taken.
///
/// # Errors
///
/// [`Error::Adapter`] where none of these can be used, and in a program that runs with more rights than its caller: it
/// could not tell whose files these are.
pub fn choose() -> Result<CacheDirectory> {
    if environment::is_privileged() {
        return Err(Error::Adapter(
            "this program runs with more rights than its caller: nothing is built for it, and only an adapter beside the \
             library is taken (`graphpatch doctor --build --into`)"
                .into(),
        ));
    }
    let env = |name: &str| environment::variable(name).map(PathBuf::from);
    let why_elsewhere = if let Some(named) = env("GRAPHPATCH_CACHE") {
        // The user has named it: no other directory is taken silently when it cannot be used.
        usable(&named).map_err(|why| {
            Error::Adapter(format!(
                "the cache directory {} (GRAPHPATCH_CACHE) cannot be used: {why}",
                named.display()
            ))
        })?;
        match trusted(&named) {
            Ok(chosen) => return Ok(chosen),
            Err(why) => format!("{} (GRAPHPATCH_CACHE) {why}", named.display()),
        }
    } else {
        let shared = env("XDG_CACHE_HOME").or_else(|| env("HOME").map(|home| home.join(".cache")));
        match shared.map(|dir| dir.join("graphpatch")) {
            None => "neither HOME nor XDG_CACHE_HOME is set".into(),
            Some(dir) if !dir.is_absolute() => format!("{} is no absolute path", dir.display()),
            Some(dir) => match usable(&dir).map(|()| trusted(&dir)) {
                Ok(Ok(chosen)) => return Ok(chosen),
                Ok(Err(why)) => format!("{} {why}", dir.display()),
                Err(why) => format!("{} cannot be used: {why}", dir.display()),
            },
        }
    };
    match private_directory(&environment::temporary_folder()) {
        Ok(dir) => Ok(CacheDirectory {
            path: dir,
            why_elsewhere: Some(why_elsewhere),
        }),
        Err(why) => Err(Error::Adapter(format!(
            "no cache directory for adapters: {why_elsewhere}; {why}; name one in GRAPHPATCH_CACHE"
        ))),
    }
}

/// The directory by its path without links, if nobody but this user and root can put files there.
fn trusted(dir: &Path) -> Result<CacheDirectory, String> {
    Folder::open(dir)
        .map(|folder| CacheDirectory {
            path: folder.path().to_path_buf(),
            why_elsewhere: None,
        })
        .map_err(|why| why.why())
}

fn usable(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    if is_noexec(dir) {
        return Err(std::io::Error::other(
            "it is mounted noexec: no library can be loaded from there",
        ));
    }
    // Asking the file system is the only sure test: read-only mounts and quotas do not show in the mode.
    make_a_file(dir).map_err(|why| std::io::Error::new(why.kind(), why.kind().to_string()))
}

/// Makes a file and removes it. `tempfile` is not used here: for its random names the standard library has to allocate the
/// identity of a thread that it did not start. If that allocation fails, the process ends; our reserve of memory is not asked.
fn make_a_file(dir: &Path) -> std::io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = dir.join(format!(".probe-{}-{number}", std::process::id()));
        match std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
        {
            // An earlier process with the same process id has left a file of this name.
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.and_then(|_| std::fs::remove_file(&file)),
        }
    }
}

fn is_noexec(dir: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    // SAFETY: an all-zero statvfs is a valid value of that plain C struct.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `facts` is writable.
    let known = unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) } == 0;
    known && facts.f_flag & libc::ST_NOEXEC != 0
}

/// A directory that others can write to could hand us their library: it must be ours, a real directory, and closed.
fn private_directory(temp: &Path) -> Result<PathBuf, String> {
    let dir = temp.join(format!("graphpatch-{}", user()));
    let refuse = |why: std::io::Error| format!("nor can {}: {why}", dir.display());
    usable(&dir).map_err(refuse)?;
    let found = std::fs::symlink_metadata(&dir).map_err(refuse)?;
    if !found.is_dir() || found.uid() != user() || found.mode() & 0o077 != 0 {
        return Err(format!(
            "nor can {}: it is not a directory of this user alone (mode 0700)",
            dir.display()
        ));
    }
    let folder =
        Folder::open(&dir).map_err(|why| format!("nor can {}: it {}", dir.display(), why.why()))?;
    Ok(folder.path().to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_tell_builds_apart() {
        let mut libtorch = Libtorch {
            lib_dir: "/t/lib".into(),
            cpu_so: "/t/lib/libtorch_cpu.so".into(),
            include_dir: None,
            version: "2.11.0".into(),
            build_id: "abc123".into(),
            cxx11_abi: true,
            cuda: None,
        };
        let name = file_name(&libtorch);
        assert!(
            name.starts_with("adapter-s") && name.ends_with("-torch2.11.0-abc123-cxx11.so"),
            "{name}"
        );
        let path = Path::new("/any").join(&name);
        assert_eq!(Name::parse(&path), Some(Name::of(&libtorch)));
        for other in [
            "x.so",
            "adapter-s1-ab-torch2-id-cxx11-more.so",
            "adapter-s1-ab-2.0-id-cxx11.so",
            "adapter-s1-ab-torch2-id-cxx11.log",
        ] {
            assert_eq!(Name::parse(Path::new(other)), None, "{other}");
        }
        libtorch.cxx11_abi = false;
        assert!(file_name(&libtorch).ends_with("-pre11.so"));
        libtorch.version = "../x y".into();
        assert!(!file_name(&libtorch).contains(['/', ' ']));
    }

    /// What the kernel says of each mount is the reference.
    #[test]
    fn noexec_mounts_are_known() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut seen = 0;
        for dir in ["/proc", "/", "/sys"] {
            let options = mounts.lines().rev().find_map(|line| {
                let mut words = line.split(' ').skip(1);
                (words.next()? == dir).then(|| words.nth(1).map(str::to_string))?
            });
            let Some(options) = options else { continue };
            let noexec = options.split(',').any(|option| option == "noexec");
            assert_eq!(is_noexec(Path::new(dir)), noexec, "{dir}");
            seen += 1;
        }
        assert!(seen > 0 && !is_noexec(Path::new("/no/such")));
    }

    #[test]
    fn private_directories_are_checked() {
        let temp = tempfile::tempdir().expect("temp");
        let dir = private_directory(temp.path()).expect("made");
        assert_eq!(dir.metadata().expect("meta").mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(private_directory(temp.path()).is_err());
        std::fs::remove_dir(&dir).expect("rm");
        std::os::unix::fs::symlink(temp.path(), &dir).expect("link");
        assert!(private_directory(temp.path()).is_err());
    }
}
