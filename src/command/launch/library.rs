//! Where `libgraphpatch.so` is. The user names it, or it is found relative to this executable, so that an installation can be
//! moved.

use std::path::{Path, PathBuf};

use crate::voice::Stop;

const NAME: &str = "libgraphpatch.so";
const NAMED: &str = "GRAPHPATCH_LIBRARY";

/// The library to preload.
pub fn find() -> Result<PathBuf, Stop> {
    if let Some(named) = std::env::var_os(NAMED).map(PathBuf::from) {
        let path = std::path::absolute(&named).unwrap_or(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Stop::usage(format!(
                "{} ({NAMED}) is no file",
                path.display()
            )))
        };
    }
    let own = std::env::current_exe()
        .map_err(|why| Stop::usage(format!("own executable: {why}; name {NAME} in {NAMED}")))?;
    // Links are resolved, since /usr/local/bin/graphpatch may be a link to an installation elsewhere.
    let own = own.canonicalize().unwrap_or(own);
    beside(own.parent().unwrap_or(Path::new("/")))
}

/// The library that belongs to a command in `bin`.
fn beside(bin: &Path) -> Result<PathBuf, Stop> {
    let prefix = bin.parent().unwrap_or(bin);
    // A build directory; then what `make install` and distributions use as libdir.
    let places = [
        bin.to_path_buf(),
        prefix.join("lib"),
        prefix.join("lib64"),
        prefix.join(format!("lib/{}-linux-gnu", std::env::consts::ARCH)),
        prefix.join("lib/graphpatch"),
    ];
    // The file with this version in its name comes first: distributions put the plain name, a link, into a separate package
    // for developers.
    let names = [
        format!("{NAME}.{}", env!("CARGO_PKG_VERSION")),
        NAME.to_string(),
    ];
    places
        .iter()
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .find(|path| path.is_file())
        .map(|path| path.canonicalize().unwrap_or(path))
        .ok_or_else(|| {
            let tried: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
            Stop::usage(format!(
                "neither {} nor {NAME} is in {}; name the library in {NAMED}",
                names[0],
                tried.join(", ")
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        std::fs::write(path, "").expect("file");
    }

    #[test]
    fn layouts() {
        let versioned = format!("{NAME}.{}", env!("CARGO_PKG_VERSION"));
        let multiarch = format!("lib/{}-linux-gnu/{versioned}", std::env::consts::ARCH);
        for place in [
            "bin/libgraphpatch.so",
            "lib/libgraphpatch.so",
            &format!("lib64/{versioned}"),
            &multiarch,
            "lib/graphpatch/libgraphpatch.so",
        ] {
            let prefix = tempfile::tempdir().expect("dir");
            let bin = prefix.path().join("bin");
            std::fs::create_dir(&bin).expect("bin");
            let told = beside(&bin).expect_err("nothing there").message;
            for part in [
                NAME,
                NAMED,
                "lib64",
                &prefix.path().join("lib").display().to_string(),
            ] {
                assert!(told.contains(part), "{part} is not in: {told}");
            }
            let file = prefix.path().join(place);
            touch(&file);
            assert_eq!(beside(&bin).ok(), file.canonicalize().ok(), "{place}");
        }
    }

    #[test]
    fn the_own_version_comes_first() {
        let prefix = tempfile::tempdir().expect("dir");
        let own = prefix
            .path()
            .join(format!("lib/{NAME}.{}", env!("CARGO_PKG_VERSION")));
        touch(&own);
        touch(&prefix.path().join("lib").join(NAME));
        assert_eq!(
            beside(&prefix.path().join("bin")).ok(),
            own.canonicalize().ok()
        );
    }
}
