//! The folders in which sockets for live control lie. Only this user can enter them.

use std::fs::{DirBuilder, symlink_metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::trust::{Folder, user};
use graphpatch_core::error::{Error, Result};

/// Where processes of this user may have put their sockets. The first one is where this process would put its own.
pub fn folders() -> Vec<PathBuf> {
    let shared = std::env::temp_dir().join(format!("graphpatch-live-{}", user()));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let own = runtime.map(|dir| dir.join("graphpatch"));
    own.into_iter().chain([shared]).collect()
}

/// The folder for this process's socket; it is made if need be.
///
/// # Errors
///
/// [`Error::File`] when it cannot be made, or when others can enter or replace it.
pub fn folder() -> Result<PathBuf> {
    let folder = folders().into_iter().next().unwrap_or_default();
    let fail = |why: String| Error::File {
        file: folder.clone(),
        why,
    };
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => {
            return Err(fail(format!(
                "no folder for the socket of live control: {why}; name one of your own in XDG_RUNTIME_DIR"
            )));
        }
        _ => check(&folder).map_err(fail),
    }
    .map(|()| folder.clone())
}

/// Says why a folder is not private to this user.
pub fn check(folder: &Path) -> std::result::Result<(), String> {
    let open = Folder::open(folder).map_err(|why| why.why())?;
    let found = symlink_metadata(open.path()).map_err(|why| why.to_string())?;
    if found.uid() != user() {
        return Err(format!("belongs to another user ({})", found.uid()));
    }
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!(
            "can be entered by other users (mode {:o}); make it private: chmod 700",
            found.mode() & 0o777
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_private_folder_is_taken() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("graphpatch");
        assert!(check(&folder).is_err());
        std::fs::create_dir(&folder).expect("folder");
        for mode in [0o755, 0o710, 0o777] {
            set_permissions(&folder, Permissions::from_mode(mode)).expect("mode");
            let why = check(&folder).expect_err("others can enter");
            assert!(why.contains("other users"), "{why}");
        }
        set_permissions(&folder, Permissions::from_mode(0o700)).expect("mode");
        assert_eq!(check(&folder), Ok(()));
    }
}
