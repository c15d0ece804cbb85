//! Builds the adapter with the machine's C++ compiler and puts it into the cache.
//!
//! Two processes may come here at once (a launcher's ranks): a `Lock` lets one build while the others wait, and the
//! finished file, sealed, appears under its name by a rename. The compiler runs without our preloading.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::cache::{self, CacheDirectory};
use super::compiler::{self, Compiler};
use super::lock::Lock;
use super::message::say;
use super::{Libtorch, seal, sources};
use graphpatch_core::error::{Error, Result};

/// The cached adapter for `libtorch`; built first when there is none, when it is not what was built (cut short, another
/// user's), or when `again` says that the one there does not load.
///
/// # Errors
///
/// [`Error::Torch`] for a libtorch that is not supported, [`Error::Adapter`] and [`Error::File`] where it cannot be built.
pub fn cached_or_built(libtorch: &Libtorch, again: bool) -> Result<PathBuf> {
    libtorch.check_version()?;
    let cache = cache::choose()?;
    let name = cache::file_name(libtorch);
    let target = cache.path.join(&name);
    if !again && check(&target).is_ok() {
        return Ok(target);
    }
    // Before anything is left in the cache.
    let (include, compiler) = (headers(libtorch)?, compiler::compiler()?);
    let before = modified(&target);
    let lock = Lock::wait(&cache.path, &name);
    let ready = check(&target).is_ok() && (!again || modified(&target) != before);
    if !ready {
        if lock.is_held() {
            remove_leftovers(&cache.path, &name);
        }
        if let Err(why) = check(&target)
            && target.symlink_metadata().is_ok()
        {
            say(&format!("{} {why}; it is built anew", target.display()));
        }
        build(libtorch, include, &compiler, &cache, &target)?;
    }
    Ok(target)
}

/// The adapter for `libtorch` that the cache has, if it can be used. Builds nothing.
pub fn cached(libtorch: &Libtorch) -> Option<PathBuf> {
    let path = cache::directory().ok()?.join(cache::file_name(libtorch));
    check(&path).is_ok().then_some(path)
}

/// Whether the file is an adapter that this user, or root, has built and nobody has changed.
///
/// # Errors
///
/// What is wrong with it, as the end of a sentence that begins with its path.
pub fn check(file: &Path) -> Result<(), String> {
    cache::check_owner(file)?;
    seal::check(file)
}

/// Puts the adapter for `libtorch` into `dir`, which is made if need be: from the cache, or built for it.
///
/// # Errors
///
/// As [`cached_or_built`]; [`Error::File`] where `dir` cannot be written.
pub fn place_in(libtorch: &Libtorch, dir: &Path) -> Result<PathBuf> {
    let built = cached_or_built(libtorch, false)?;
    let target = dir.join(cache::file_name(libtorch));
    let write = || {
        std::fs::create_dir_all(dir)?;
        let work = tempfile::Builder::new()
            .prefix(".adapter-")
            .tempdir_in(dir)?;
        let copy = work.path().join("copy");
        std::fs::copy(&built, &copy)?;
        std::fs::rename(&copy, &target)
    };
    write().map_err(|why| file_error(&target, &why))?;
    Ok(target)
}

/// Work directories of builds that were killed: nobody else builds this one while the lock is held.
fn remove_leftovers(dir: &Path, name: &str) {
    let work = work_prefix(name);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&work) {
            // A directory that cannot be removed does no harm.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn work_prefix(name: &str) -> String {
    format!(".build-{name}-")
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn file_error(path: &Path, why: &std::io::Error) -> Error {
    Error::File {
        file: path.to_path_buf(),
        why: why.to_string(),
    }
}

/// The headers that belong to `libtorch`.
///
/// # Errors
///
/// [`Error::Adapter`] where there are none, or those of another libtorch.
pub fn headers(libtorch: &Libtorch) -> Result<&Path> {
    if let (Some(include), Some(other)) = (&libtorch.include_dir, libtorch.foreign_headers()) {
        return Err(Error::Adapter(format!(
            "the C++ headers in {} are those of libtorch {other}, but {} is {}: install the right ones, or name their \
             directory in GRAPHPATCH_TORCH_INCLUDE",
            include.display(),
            libtorch.lib_dir.display(),
            libtorch.version
        )));
    }
    libtorch.include_dir.as_deref().ok_or_else(|| {
        Error::Adapter(format!(
            "the C++ headers of the libtorch in {} are not installed (looked for include/ATen/core/dispatch/Dispatcher.h): \
             install them, or name their directory in GRAPHPATCH_TORCH_INCLUDE, or copy an adapter built elsewhere by \
             `graphpatch doctor --build --into DIR` into $GRAPHPATCH_ADAPTER_DIR",
            libtorch.lib_dir.display()
        ))
    })
}

fn build(
    libtorch: &Libtorch,
    include: &Path,
    compiler: &Compiler,
    cache: &CacheDirectory,
    target: &Path,
) -> Result<()> {
    let dir = &cache.path;
    let name = cache::file_name(libtorch);
    // In the cache directory, so that the rename stays on one file system.
    let work = tempfile::Builder::new()
        .prefix(&work_prefix(&name))
        .tempdir_in(dir)
        .map_err(|why| file_error(dir, &why))?;
    for (name, text) in sources::ADAPTER_SOURCES {
        let path = work.path().join(name);
        let parent = path.parent().unwrap_or(work.path());
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|why| file_error(&path, &why))?;
    }
    let elsewhere = cache.why_elsewhere.as_ref().map(|why| {
        format!(
            " It goes to {}, which may not last: {why}; a better place can be named in GRAPHPATCH_CACHE.",
            dir.display()
        )
    });
    say(&format!(
        "building the adapter for libtorch {} (first use, about half a minute)…{}",
        libtorch.version,
        elsewhere.unwrap_or_default()
    ));
    let built = work.path().join("adapter.so");
    let arguments = arguments(libtorch, include, work.path(), &built)?;
    compile(compiler, &arguments, target, &built)?;
    seal::seal(&built, &name)
        // Compilers heed the umask, which may let a group write.
        .and_then(|()| std::fs::set_permissions(&built, Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&built, target))
        .map_err(|why| file_error(target, &why))
}

fn arguments(
    libtorch: &Libtorch,
    include: &Path,
    work: &Path,
    built: &Path,
) -> Result<Vec<OsString>> {
    let c10 = libtorch.c10_so().ok_or_else(|| {
        Error::Adapter(format!(
            "no libc10.so beside {}: this libtorch is incomplete",
            libtorch.cpu_so.display()
        ))
    })?;
    let mut rpath = OsString::from("-Wl,-rpath,");
    rpath.push(&libtorch.lib_dir);
    let mut list: Vec<OsString> = vec![
        format!("-std=c++{}", compiler::standard(libtorch)).into(),
        "-O2".into(),
        "-fPIC".into(),
        "-shared".into(),
        "-fvisibility=hidden".into(),
        // at::RecordFunction has another layout without it.
        "-DNDEBUG".into(),
        format!("-D_GLIBCXX_USE_CXX11_ABI={}", u8::from(libtorch.cxx11_abi)).into(),
    ];
    for dir in [work, &work.join("adapter")] {
        list.extend(["-I".into(), dir.into()]);
    }
    for dir in [include, &include.join("torch/csrc/api/include")] {
        list.extend(["-isystem".into(), dir.into()]);
    }
    list.extend([work.join(sources::MAIN).into(), "-o".into(), built.into()]);
    // By path, not -l: distributions install libtorch_cpu.so.2.6 without the plain name.
    list.extend([
        c10.into(),
        libtorch.cpu_so.clone().into(),
        "-Wl,--disable-new-dtags".into(),
        rpath,
    ]);
    Ok(list)
}

fn compile(compiler: &Compiler, arguments: &[OsString], target: &Path, built: &Path) -> Result<()> {
    let log_path = target.with_extension("log");
    let log = File::create(&log_path).map_err(|why| file_error(&log_path, &why))?;
    let clone = log.try_clone().map_err(|why| file_error(&log_path, &why))?;
    let mut command = compiler.command();
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(clone)
        .stderr(log);
    let good = match command.status() {
        Ok(status) => status.success(),
        // A program that ignores SIGCHLD (it may be set before exec) leaves nothing to wait for: the file decides.
        Err(why) if why.raw_os_error() == Some(libc::ECHILD) => true,
        Err(why) => {
            return Err(Error::Adapter(format!(
                "the C++ compiler {} does not start: {why}",
                compiler.program.display()
            )));
        }
    };
    if good && built.is_file() {
        // Only a failure's log is worth keeping; a leftover is no failure of the build.
        let _ = std::fs::remove_file(&log_path);
        return Ok(());
    }
    let text = std::fs::read(&log_path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    Err(Error::Adapter(format!(
        "the adapter does not compile with {}; the full log is in {}, it says\n{}",
        compiler.program.display(),
        log_path.display(),
        telling_lines(&text)
    )))
}

/// The first lines with an error in them and the last lines of all, which is where compilers and linkers say why.
fn telling_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let errors = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.contains("error"))
        .map(|(at, _)| at)
        .take(4);
    let mut shown: Vec<usize> = errors
        .chain(lines.len().saturating_sub(6)..lines.len())
        .collect();
    shown.sort_unstable();
    shown.dedup();
    shown
        .into_iter()
        .map(|at| format!("  {}", lines[at]))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_cut_to_what_tells() {
        let mut log = String::from("a.h:1: error: first\n");
        for line in 0..100 {
            log += &format!("note {line}\n");
        }
        let told = telling_lines(&log);
        assert!(
            told.starts_with("  a.h:1: error: first\n  note 94") && told.ends_with("note 99"),
            "{told}"
        );
        assert_eq!(telling_lines(""), "");
    }

    #[test]
    fn headers_and_libc10_are_asked_for() {
        let dir = tempfile::tempdir().expect("dir");
        let mut libtorch = Libtorch::describe(&dir.path().join("lib/libtorch_cpu.so"));
        let text = headers(&libtorch).expect_err("no headers").to_string();
        assert!(
            text.contains("headers") && text.contains("GRAPHPATCH_TORCH_INCLUDE"),
            "{text}"
        );
        libtorch.include_dir = Some(dir.path().into());
        let text = arguments(&libtorch, dir.path(), dir.path(), dir.path())
            .expect_err("no c10")
            .to_string();
        assert!(text.contains("libc10.so"), "{text}");
    }
}
