//! Builds the adapter with the machine's C++ compiler and puts it into the cache.
//!
//! Several processes may need the adapter at once, such as the ranks of a launcher. A `Lock` lets one build while the
//! others wait. The finished file is sealed and gets its name by a rename. The compiler runs without `LD_PRELOAD`, and is
//! ended if it hangs.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Seek;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use super::cache::{self, CacheDirectory};
use super::compiler::{self, Compiler};
use super::held::Held;
use super::lock::Lock;
use super::message::say;
use super::trust::{Folder, Sound, Unfit};
use super::{Libtorch, limited, seal, sources};
use graphpatch_core::error::{Error, Result};

/// The cached adapter for `libtorch`. It is built first if there is none, if the file is not what was built (cut short, or
/// another user's), or if `again` says that the file there does not load.
///
/// # Errors
///
/// [`Error::Torch`] for a libtorch that is not supported; [`Error::Adapter`] and [`Error::File`] if the adapter cannot be
/// built, or if reading the cached file fails.
pub fn cached_or_built(libtorch: &Libtorch, again: bool) -> Result<Sound> {
    libtorch.check_version()?;
    let _held = Held::new();
    let cache = cache::choose()?;
    let name = cache::file_name(libtorch);
    let target = cache.path.join(&name);
    if !again && let Some(sound) = usable(&target)? {
        return Ok(sound);
    }
    // These may fail, so they come before anything is written to the cache.
    let (include, compiler) = (headers(libtorch)?, compiler::compiler()?);
    let (before, asked) = (modified(&target), SystemTime::now());
    let folder = Folder::open(&cache.path).map_err(|why| unfit(&cache.path, &why))?;
    let lock = Lock::wait(&folder, &name);
    if let Some(sound) = usable(&target)?
        && (!again || modified(&target) != before)
    {
        return Ok(sound);
    }
    if lock.is_held() {
        remove_leftovers(&cache.path, &name);
        // The process that had the lock until now has just failed to build it. To try the same again would only take time.
        if modified(&log_of(&target)).is_some_and(|failed| failed > asked) {
            return Err(Error::Adapter(format!(
                "another process has just tried to build the adapter; what the compiler said is in {}",
                log_of(&target).display()
            )));
        }
    }
    if let Err(Unfit::Wrong(why)) = sound(&target) {
        say(&format!("{} {why}; it is built anew", target.display()));
    }
    build(libtorch, include, &compiler, &cache, &target)?;
    sound(&target).map_err(|why| unfit(&target, &why))
}

/// Whether the cache has an adapter for `libtorch` that can be used. Builds nothing.
pub fn is_cached(libtorch: &Libtorch) -> bool {
    cache::directory().is_ok_and(|dir| sound(&dir.join(cache::file_name(libtorch))).is_ok())
}

/// The adapter's file, if it can be used: this user or root has built it, nobody else can have changed it, and it is
/// whole. If reading fails, it is read again after a pause, as such errors may pass.
///
/// # Errors
///
/// What is wrong with it.
pub fn sound(file: &Path) -> Result<Sound, Unfit> {
    const PAUSES_MS: [u64; 3] = [10, 50, 200];
    for pause in PAUSES_MS {
        match sound_now(file) {
            Err(Unfit::Unreadable(_)) => std::thread::sleep(Duration::from_millis(pause)),
            found => return found,
        }
    }
    sound_now(file)
}

fn sound_now(file: &Path) -> Result<Sound, Unfit> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Unfit::Absent);
    };
    let mut sound = Folder::open(folder)?.file(name)?;
    seal::check(&mut sound.file, name)?;
    Ok(sound)
}

/// The file if it is sound, and none where one has to be built.
///
/// # Errors
///
/// The file cannot be read. A new file in its place could not be read either.
fn usable(file: &Path) -> Result<Option<Sound>> {
    match sound(file) {
        Ok(sound) => Ok(Some(sound)),
        Err(why @ Unfit::Unreadable(_)) => Err(unfit(file, &why)),
        Err(_) => Ok(None),
    }
}

fn unfit(path: &Path, why: &Unfit) -> Error {
    Error::Adapter(format!("{} {}", path.display(), why.why()))
}

/// Puts the adapter for `libtorch`, from the cache or built now, into `dir`, which is made if need be.
///
/// # Errors
///
/// As [`cached_or_built`]; [`Error::File`] where `dir` cannot be written.
pub fn place_in(libtorch: &Libtorch, dir: &Path) -> Result<PathBuf> {
    let mut built = cached_or_built(libtorch, false)?;
    let target = dir.join(cache::file_name(libtorch));
    let mut write = || {
        std::fs::create_dir_all(dir)?;
        let work = tempfile::Builder::new()
            .prefix(".adapter-")
            .tempdir_in(dir)?;
        let copy = work.path().join("copy");
        built.file.rewind()?;
        std::io::copy(&mut built.file, &mut File::create(&copy)?)?;
        // The copy's mode depends on the umask, which may let a group write.
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        std::fs::rename(&copy, &target)
    };
    write().map_err(|why| file_error(&target, &why))?;
    Ok(target)
}

/// Removes work directories of builds that were killed. No other process builds this adapter while the lock is held.
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
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(dir)
        .map_err(|why| file_error(dir, &why))?;
    for (name, text) in sources::files()? {
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
        // The mode of the compiler's output depends on the umask, which may let a group write.
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
        // With this the compiler needs four fifths of its time with -O2, and the adapter executes a twentieth more instructions:
        // docs/explanation/cost.md.
        "-O1".into(),
        "-finline-functions".into(),
        "-fPIC".into(),
        "-shared".into(),
        "-fvisibility=hidden".into(),
        // libtorch is built with NDEBUG; without it at::RecordFunction would have another layout.
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
    // The libraries are named by path, not by -l, since distributions install libtorch_cpu.so.2.6 without the plain name.
    list.extend([
        c10.into(),
        libtorch.cpu_so.clone().into(),
        "-Wl,--disable-new-dtags".into(),
        rpath,
    ]);
    Ok(list)
}

/// The path of the log that a failed build leaves.
fn log_of(target: &Path) -> PathBuf {
    target.with_extension("log")
}

fn compile(compiler: &Compiler, arguments: &[OsString], target: &Path, built: &Path) -> Result<()> {
    // The log is written in the work directory, which is new, so no link or pipe of that name can be there.
    let written = built.with_extension("log");
    let log = File::create(&written).map_err(|why| file_error(&written, &why))?;
    let clone = log.try_clone().map_err(|why| file_error(&written, &why))?;
    let mut command = compiler.command();
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(clone)
        .stderr(log);
    let limit = limited::limit();
    let good = match limited::status(&mut command, limit) {
        Ok(Some(status)) => status.success(),
        Ok(None) => {
            let _ = std::fs::rename(&written, log_of(target));
            return Err(Error::Adapter(format!(
                "the C++ compiler {} did not end within {} s and was stopped; {} names another limit in seconds",
                compiler.program.display(),
                limit.as_secs(),
                limited::LIMIT
            )));
        }
        // In a program that ignores SIGCHLD (which exec inherits) there is no exit status. Then the built file decides.
        Err(why) if why.raw_os_error() == Some(libc::ECHILD) => true,
        Err(why) => {
            return Err(Error::Adapter(format!(
                "the C++ compiler {} does not start: {why}",
                compiler.program.display()
            )));
        }
    };
    if good && built.is_file() {
        // Only the log of a failed build is kept. An old log that cannot be removed does not make the build fail.
        let _ = std::fs::remove_file(log_of(target));
        return Ok(());
    }
    let text = std::fs::read(&written)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    // A log that cannot be kept is no worse than the failure itself, whose first lines are told here.
    let _ = std::fs::rename(&written, log_of(target));
    Err(Error::Adapter(format!(
        "the adapter does not compile with {}; the full log is in {}, it says\n{}",
        compiler.program.display(),
        log_of(target).display(),
        error_lines(&text)
    )))
}

/// The first lines with an error in them and the last lines of all, which is where compilers and linkers say why.
fn error_lines(log: &str) -> String {
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
        let told = error_lines(&log);
        assert!(
            told.starts_with("  a.h:1: error: first\n  note 94") && told.ends_with("note 99"),
            "{told}"
        );
        assert_eq!(error_lines(""), "");
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
