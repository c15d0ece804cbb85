//! Opening a page in the user's browser.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use graphpatch_loader::find_in_path;

/// Starts the browser that $BROWSER names, or the desktop's own, with a file or an address; false where there is none. Nothing
/// waits for it.
pub fn open(page: impl AsRef<OsStr>) -> bool {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let named = std::env::var_os("BROWSER").filter(|name| !name.is_empty());
    let desktop = has_screen.then(|| OsString::from("xdg-open"));
    let Some(program) = named.or(desktop).and_then(|name| find_in_path(&name)) else {
        return false;
    };
    let mut command = Command::new(program);
    command
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().is_ok()
}
