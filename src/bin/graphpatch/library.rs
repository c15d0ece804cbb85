//! Where `libgraphpatch.so` is: named, or beside this executable.

use std::path::{Path, PathBuf};

use crate::Stop;

const NAME: &str = "libgraphpatch.so";

/// The library to preload.
pub fn find() -> Result<PathBuf, Stop> {
    if let Some(named) = std::env::var_os("GRAPHPATCH_LIBRARY").map(PathBuf::from) {
        let path = std::path::absolute(&named).unwrap_or(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Stop::usage(format!(
                "{} (GRAPHPATCH_LIBRARY) is no file",
                path.display()
            )))
        };
    }
    let own =
        std::env::current_exe().map_err(|why| Stop::usage(format!("own executable: {why}")))?;
    let own = own.canonicalize().unwrap_or(own);
    let bin = own.parent().unwrap_or(Path::new("/"));
    // A build directory, an installed one, a distribution's.
    let places = [
        bin.to_path_buf(),
        bin.join("../lib"),
        bin.join("../lib64"),
        bin.join("../lib/graphpatch"),
    ];
    let found = places
        .iter()
        .map(|dir| dir.join(NAME))
        .find(|path| path.is_file());
    found
        .map(|path| path.canonicalize().unwrap_or(path))
        .ok_or_else(|| {
            let tried: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
            Stop::usage(format!(
                "no {NAME} in {}; name it in GRAPHPATCH_LIBRARY",
                tried.join(", ")
            ))
        })
}
