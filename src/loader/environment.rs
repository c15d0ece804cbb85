//! Environment variables, and when they are not trusted.

use std::ffi::OsString;
use std::path::PathBuf;

/// The value of a variable, if the environment can be trusted. A program that runs with more rights than its caller (setuid,
/// setgid, file capabilities) takes nothing from the caller's environment.
pub fn variable(name: &str) -> Option<OsString> {
    match is_privileged() {
        true => None,
        false => std::env::var_os(name).filter(|value| !value.is_empty()),
    }
}

/// The same as text; `None` also for a value that is not UTF-8.
pub fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// Whether the kernel has started this program with more rights than its caller has.
pub fn is_privileged() -> bool {
    // SAFETY: getauxval only reads what the kernel handed to the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The folder for temporary files.
pub fn temporary_folder() -> PathBuf {
    variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}
