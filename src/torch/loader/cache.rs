//! Where built adapters are kept, and what they are called: one file per adapter source and libtorch build.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Libtorch, sources};
use crate::error::{Error, Result};

/// FNV-1a, 64 bits: stable between builds and machines, unlike the standard library's hashers.
pub struct Fnv(u64);

impl Fnv {
    /// The empty hash.
    pub fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash so far.
    pub fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv::new()
    }
}

/// `adapter-s1-<source hash>-torch2.11.0-<build id>-cxx11.so`: a file of that name fits, or nothing does.
pub fn file_name(libtorch: &Libtorch) -> String {
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
    format!(
        "adapter-s{}-{:016x}-torch{}-{}-{}.so",
        sources::seam_version(),
        sources::hash(),
        plain(&libtorch.version),
        plain(&libtorch.build_id),
        if libtorch.cxx11_abi { "cxx11" } else { "pre11" }
    )
}

/// The cache directory, created if need be: `$GRAPHPATCH_CACHE`, `$XDG_CACHE_HOME/graphpatch`, `~/.cache/graphpatch`,
/// else a directory of this user alone under the temporary one.
pub fn directory() -> Result<PathBuf> {
    let env = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(named) = env("GRAPHPATCH_CACHE") {
        // The user's own word: no silent detour when it does not work.
        return usable(&named).map(|()| named.clone()).map_err(|why| {
            Error::Adapter(format!(
                "the cache directory {} (GRAPHPATCH_CACHE) cannot be used: {why}",
                named.display()
            ))
        });
    }
    let shared = env("XDG_CACHE_HOME").or_else(|| env("HOME").map(|home| home.join(".cache")));
    if let Some(dir) = shared.map(|dir| dir.join("graphpatch"))
        && dir.is_absolute()
        && usable(&dir).is_ok()
    {
        return Ok(dir);
    }
    private_directory(&std::env::temp_dir())
}

fn usable(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    // Asking the file system is the only sure test: read-only mounts and quotas do not show in the mode.
    tempfile::Builder::new()
        .prefix(".probe")
        .tempfile_in(dir)
        .map(drop)
}

/// A directory that others can write to could hand us their library: it must be ours, a real directory, and closed.
fn private_directory(temp: &Path) -> Result<PathBuf> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let user = unsafe { libc::geteuid() };
    let dir = temp.join(format!("graphpatch-{user}"));
    let refuse = |why: String| {
        Error::Adapter(format!(
            "{}: {why}; name a cache directory in GRAPHPATCH_CACHE",
            dir.display()
        ))
    };
    usable(&dir).map_err(|why| refuse(why.to_string()))?;
    let found = std::fs::symlink_metadata(&dir).map_err(|why| refuse(why.to_string()))?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(refuse(
            "is not a directory of this user alone (mode 0700)".into(),
        ));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn fnv_is_the_published_one() {
        let mut hash = Fnv::new();
        hash.write(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_tell_builds_apart() {
        let mut libtorch = Libtorch {
            lib_dir: "/t/lib".into(),
            cpu_so: "/t/lib/libtorch_cpu.so".into(),
            include_dir: None,
            version: "2.11.0".into(),
            build_id: "abc123".into(),
            cxx11_abi: true,
            cuda: false,
        };
        let name = file_name(&libtorch);
        assert!(
            name.starts_with("adapter-s") && name.ends_with("-torch2.11.0-abc123-cxx11.so"),
            "{name}"
        );
        libtorch.cxx11_abi = false;
        assert!(file_name(&libtorch).ends_with("-pre11.so"));
        libtorch.version = "../x y".into();
        assert!(!file_name(&libtorch).contains(['/', ' ']));
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
