//! How a program is started with the library preloaded, and how it ended: what `run` and `sweep` have in common.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use graphpatch_loader::trust::Folder;
use graphpatch_loader::{DISABLE_VARIABLE, check_library, find_in_path, is_disabled};
use graphpatch_protocol::{OPTIONS_FILE, OPTIONS_VARIABLE, Options};
use tempfile::TempDir;

use crate::launch::{library, preload, python};
use crate::voice::{Stop, say};

/// A private directory for reports, options and links. It is removed when dropped. If `TMPDIR` is a folder in which other
/// users could replace it, the system's own temporary folder is used instead.
pub fn directory() -> Result<TempDir, Stop> {
    let named = std::env::temp_dir();
    match directory_in(&named) {
        Ok(dir) => Ok(dir),
        Err(why) => {
            let why = format!("a directory for reports in {}: {why}", named.display());
            let Ok(dir) = directory_in(Path::new("/tmp")) else {
                return Err(Stop::usage(why));
            };
            say(format!("{why}; it is made in /tmp"));
            Ok(dir)
        }
    }
}

fn directory_in(folder: &Path) -> Result<TempDir, String> {
    let dir = tempfile::Builder::new()
        .prefix("graphpatch-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(folder)
        .map_err(|why| why.to_string())?;
    match Folder::open(dir.path()) {
        Ok(_) => Ok(dir),
        Err(why) => Err(format!("it {}", why.why())),
    }
}

/// A path of the library that can be preloaded. If its own path cannot, a link is made in `dir`.
pub fn library(dir: &Path) -> Result<PathBuf, Stop> {
    preloadable(library::find()?, dir)
}

/// The command that starts the program with the library preloaded. The options file lies beside the reports.
pub fn command(argv: &[OsString], options: &Options, library: &Path) -> Result<Command, Stop> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Stop::usage("no PROGRAM"));
    };
    if is_disabled() {
        return Err(Stop::usage(format!(
            "{DISABLE_VARIABLE} is set: nothing of libgraphpatch would run in the program"
        )));
    }
    let dir = &options.report_dir;
    let options_file = dir.join(OPTIONS_FILE);
    options.save(&options_file)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(OPTIONS_VARIABLE, &options_file)
        .env(SANITIZER, sanitizer_options());
    if let Err(why) = check_library(library) {
        say(format!(
            "{} {why}: the program runs without it",
            library.display()
        ));
        return Ok(command);
    }
    command.env("LD_PRELOAD", preload_list(library));
    if options.live || options.record || !options.patches.is_empty() {
        python::prepare(&mut command, library, dir);
    }
    Ok(command)
}

/// Says what is wrong with the name of a program.
pub fn check_program(argv: &[OsString]) -> Result<(), Stop> {
    let Some(program) = argv.first() else {
        return Err(Stop::usage("no PROGRAM"));
    };
    if find_in_path(program).is_some() {
        return Ok(());
    }
    let name = Path::new(program).display();
    Err(Stop::usage(if !program.as_bytes().contains(&b'/') {
        format!(
            "{name}: no program of this name is in PATH{}",
            here(program)
        )
    } else if Path::new(program).exists() {
        format!("{name}: is not an executable file{}", how_to_start(program))
    } else {
        format!("{name}: no such program")
    }))
}

/// For a name without a folder that is a file in this one: how to say that it is meant.
fn here(program: &OsString) -> String {
    let path = Path::new(program);
    match path.extension() {
        Some(end) if end == "py" && path.is_file() => how_to_start(program),
        _ if path.is_file() => format!("; the file in this folder is ./{}", path.display()),
        _ => String::new(),
    }
}

/// What may start a file that is no program.
fn how_to_start(program: &OsString) -> String {
    let path = Path::new(program);
    match path.extension().and_then(|end| end.to_str()) {
        _ if path.is_dir() => "; it is a folder".to_owned(),
        Some("py") => format!("; start it by python {}", path.display()),
        _ => format!(
            "; if it is a program, chmod +x {} lets it start",
            path.display()
        ),
    }
}

/// The exit code. For a program that a signal has ended it is, as in a shell, 128 plus the signal's number.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The dynamic linker splits `LD_PRELOAD` at spaces and colons. A path with one of them gets a link without.
fn preloadable(library: PathBuf, dir: &Path) -> Result<PathBuf, Stop> {
    let splits = |path: &Path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| matches!(byte, b' ' | b':'))
    };
    if !splits(&library) {
        return Ok(library);
    }
    let link = dir.join("libgraphpatch.so");
    if splits(&link) {
        return Err(Stop::usage(format!(
            "{}: a path with a space or colon cannot be preloaded",
            library.display()
        )));
    }
    std::os::unix::fs::symlink(&library, &link)
        .map_err(|why| Stop::usage(format!("{}: {why}", link.display())))?;
    Ok(link)
}

/// The runtime of GCC's address sanitizer ends the program if another library is loaded before it, as a preloaded one is. An
/// option switches this check off. The user's own options follow it and so take precedence.
const SANITIZER: &str = "ASAN_OPTIONS";

fn sanitizer_options() -> OsString {
    let mut options = OsString::from("verify_asan_link_order=0");
    if let Some(others) = std::env::var_os(SANITIZER).filter(|others| !others.is_empty()) {
        options.push(":");
        options.push(others);
    }
    options
}

/// The list for `LD_PRELOAD`: our library first, so that its symbols are found first; then the user's libraries.
fn preload_list(library: &Path) -> OsString {
    let mut list = preload::entry(library);
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        list.push(OsStr::new(":"));
        list.push(others);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(libc::SIGABRT)), 134);
    }

    #[test]
    fn awkward_library_paths() {
        let dir = tempfile::tempdir().expect("dir");
        let plain = dir.path().join("libgraphpatch.so");
        assert_eq!(
            preloadable("/a/b.so".into(), dir.path()).ok(),
            Some("/a/b.so".into())
        );
        assert_eq!(
            preloadable("/a b/c.so".into(), dir.path()).ok(),
            Some(plain.clone())
        );
        assert_eq!(plain.read_link().ok(), Some("/a b/c.so".into()));
        assert!(preloadable("/a b/c.so".into(), Path::new("/x y")).is_err());
    }

    /// The directory is private under any umask, and never lies in a folder in which other users may rename it.
    #[test]
    fn the_directory_is_private() {
        let dir = tempfile::tempdir().expect("dir");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        let made = directory_in(dir.path()).expect("made");
        assert_eq!(mode(made.path()), 0o700);
        drop(made);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("chmod");
        let why = directory_in(dir.path()).expect_err("open to all");
        assert!(why.contains("other users"), "{why}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).expect("chmod");
        assert!(directory_in(dir.path()).is_ok());
    }

    #[test]
    fn programs_are_checked() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(check_program(&["sh".into()]).is_ok());
        assert!(check_program(&[dir.path().into()]).is_err());
    }
}
