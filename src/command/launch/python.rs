//! What `run` does for Python programs: it sets the environment variables by which calls of modules in Python become known to
//! the library. Every program gets them, as it may start Python.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::launch::python_package;

use crate::voice::say;

/// Puts our folder first in `PYTHONPATH`, so that Python finds our `sitecustomize`, which then runs the next one.
pub fn prepare(command: &mut Command, library: &Path, dir: &Path) {
    let folder = match python_package::place(dir) {
        Ok(folder) => folder,
        Err(why) => {
            say(format!("modules called by Python are not seen: {why}"));
            return;
        }
    };
    command
        .env("PYTHONPATH", list(&folder, std::env::var_os("PYTHONPATH")))
        .env("GRAPHPATCH_LIBRARY", library);
}

/// The folder, followed by the other entries. An empty list is not appended: an empty entry would mean the current folder.
fn list(folder: &Path, others: Option<OsString>) -> OsString {
    let mut list = folder.as_os_str().to_os_string();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        list.push(":");
        list.push(others);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_list_stays() {
        let ours = Path::new("/c/site");
        assert_eq!(list(ours, None), "/c/site");
        assert_eq!(list(ours, Some("".into())), "/c/site");
        assert_eq!(list(ours, Some("/a::/b".into())), "/c/site:/a::/b");
    }
}
