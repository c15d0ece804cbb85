//! Adapters that were built ahead: in `$GRAPHPATCH_ADAPTER_DIR`, and in `graphpatch-adapters/` beside the library.
//!
//! There may be any number of them. They are told apart by their file names, so adapters for other libtorchs are not read.
//! One that nearly fits is remembered, since the user will want to know why it was not used.

use std::path::{Path, PathBuf};

use graphpatch_locks::OnceLock;

use super::cache::Name;
use super::{Libtorch, build, environment};

/// The folder beside the library.
pub const FOLDER: &str = "graphpatch-adapters";

/// An adapter that `graphpatch attach` has built: the environment of the process may name another cache.
static PREFERRED: OnceLock<PathBuf> = OnceLock::new();

/// From now on this adapter comes before all others where it fits. The first call counts.
pub fn prefer_adapter(file: &Path) {
    let _ = PREFERRED.set(file.to_path_buf());
}

/// What the folders of built adapters have for one libtorch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// Sound and built for it from this source, best first.
    pub fits: Vec<PathBuf>,
    /// Adapters that seem to be meant for it but do not fit. Each is a sentence with the file and what is wrong with it.
    pub near: Vec<String>,
    /// The other libtorch versions that there are adapters for.
    pub others: Vec<String>,
}

impl Shipped {
    /// Looks for the adapter of `libtorch` where `library` (a path of libgraphpatch) and the environment say.
    pub fn find(libtorch: &Libtorch, library: Option<&Path>) -> Shipped {
        let mut shipped = Shipped::default();
        if let Some(preferred) = PREFERRED.get() {
            shipped.look_at(&Name::of(libtorch), preferred.clone());
        }
        if let Some(named) = environment::variable("GRAPHPATCH_ADAPTER_DIR") {
            let dir = PathBuf::from(named);
            if dir.is_dir() {
                shipped.look(libtorch, &dir);
            } else {
                let why = format!("{} (GRAPHPATCH_ADAPTER_DIR) is no directory", dir.display());
                shipped.near.push(why);
            }
        }
        for dir in beside(library) {
            shipped.look(libtorch, &dir);
        }
        shipped
    }

    fn look(&mut self, libtorch: &Libtorch, dir: &Path) {
        let wanted = Name::of(libtorch);
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            self.look_at(&wanted, file);
        }
        self.others.sort();
        self.others.dedup();
    }

    fn look_at(&mut self, wanted: &Name, file: PathBuf) {
        let Some(name) = Name::parse(&file) else {
            return;
        };
        match unfit(&name, wanted) {
            None => match build::sound(&file) {
                Ok(_) => self.fits.push(file),
                Err(why) => self.near.push(format!("{} {}", file.display(), why.why())),
            },
            Some(why) if name.version == wanted.version => {
                self.near.push(format!("{} {why}", file.display()));
            }
            Some(_) => self.others.push(name.version),
        }
    }

    /// A message for the case that none could be used; empty if there is nothing to say.
    pub fn complaint(&self) -> String {
        let mut parts = self.near.clone();
        if !self.others.is_empty() {
            parts.push(format!(
                "there are adapters built ahead for libtorch {}",
                self.others.join(", ")
            ));
        }
        parts.join("; ")
    }
}

/// Why an adapter of the name `name` cannot be used where `wanted` is needed. The version is not compared: the build id is
/// more exact, and not every installation tells its version.
fn unfit(name: &Name, wanted: &Name) -> Option<String> {
    if name.build_id != wanted.build_id || name.abi != wanted.abi {
        return Some(format!(
            "was built for another build of libtorch {} (build id {}, {}; this one is {}, {})",
            name.version, name.build_id, name.abi, wanted.build_id, wanted.abi
        ));
    }
    (name.source != wanted.source).then(|| {
        format!(
            "was built by another version of libgraphpatch (adapter {}; this one needs {})",
            name.source, wanted.source
        )
    })
}

/// The folder beside the library's path as it was loaded, and the one beside the file that links lead to.
fn beside(library: Option<&Path>) -> Vec<PathBuf> {
    let real = library.and_then(|library| library.canonicalize().ok());
    let mut dirs: Vec<PathBuf> = library
        .into_iter()
        .chain(real.as_deref())
        .filter_map(|library| Some(library.parent()?.join(FOLDER)))
        .collect();
    dirs.dedup();
    dirs
}

#[cfg(test)]
mod tests {
    use super::super::libtorch::tests::libtorch;
    use super::super::seal;
    use super::*;

    fn put(dir: &Path, name: &Name) -> PathBuf {
        std::fs::create_dir_all(dir).expect("dir");
        let file = dir.join(name.to_string());
        std::fs::write(&file, "code").expect("write");
        seal::seal(&file, &name.to_string()).expect("seal");
        file
    }

    #[test]
    fn the_one_that_fits_is_found_among_others() {
        let dir = tempfile::tempdir().expect("dir");
        let (library, folder) = (dir.path().join("lib.so"), dir.path().join(FOLDER));
        let here = libtorch("2.11.0");
        let find = || Shipped::find(&here, Some(&library));
        assert_eq!(find(), Shipped::default());
        let name = Name::of(&here);
        for version in ["2.4.1", "2.15.0"] {
            put(
                &folder,
                &Name {
                    version: version.into(),
                    build_id: format!("of{version}"),
                    ..name.clone()
                },
            );
        }
        std::fs::write(folder.join("README"), "").expect("write");
        let found = find();
        assert_eq!(
            found.complaint(),
            "there are adapters built ahead for libtorch 2.15.0, 2.4.1"
        );
        put(
            &folder,
            &Name {
                build_id: "feed".into(),
                ..name.clone()
            },
        );
        put(
            &folder,
            &Name {
                source: "s1-00".into(),
                ..name.clone()
            },
        );
        let file = put(&folder, &name);
        let found = find();
        assert_eq!(found.fits, std::slice::from_ref(&file));
        let complaint = found.complaint();
        assert!(
            complaint.contains(
                "another build of libtorch 2.11.0 (build id feed, cxx11; this one is 00ff"
            ) && complaint.contains("another version of libgraphpatch (adapter s1-00"),
            "{complaint}"
        );
        std::fs::write(&file, "other").expect("write");
        let found = find();
        assert!(found.fits.is_empty() && found.complaint().contains("no seal"));
        // It is also found through a link to the library, and for a libtorch whose version is not known.
        put(&folder, &name);
        let link = dir.path().join("elsewhere");
        std::fs::create_dir(&link).expect("dir");
        let link = link.join("lib.so");
        std::fs::write(&library, "").expect("write");
        std::os::unix::fs::symlink(&library, &link).expect("link");
        let unknown = libtorch("unknown");
        assert_eq!(Shipped::find(&unknown, Some(&link)).fits.len(), 1);
    }
}
