//! Builds the adapter with the machine's C++ compiler and puts it into the cache.
//!
//! Two processes may come here at once (a launcher's ranks): a lock file lets one build while the others wait, and the
//! finished file appears under its name by a rename. The compiler runs without our preloading.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Libtorch, cache, sources};
use crate::error::{Error, Result};

/// A C++ compiler and the arguments that `$CXX` gives it (`ccache g++`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program, found in `PATH`.
    pub program: PathBuf,
    /// Arguments that come first.
    pub arguments: Vec<String>,
}

/// `$CXX`, or the first of `c++`, `g++`, `clang++` in `PATH`.
pub fn compiler() -> Result<Compiler> {
    choose_compiler(std::env::var("CXX").ok().as_deref(), |name| {
        super::find_in_path(OsStr::new(name))
    })
}

fn choose_compiler(cxx: Option<&str>, find: impl Fn(&str) -> Option<PathBuf>) -> Result<Compiler> {
    let named = cxx.map(str::trim).filter(|text| !text.is_empty());
    let lines: Vec<&str> = named.into_iter().chain(["c++", "g++", "clang++"]).collect();
    for line in &lines {
        let mut words = line.split_whitespace();
        if let Some(program) = words.next().and_then(&find) {
            return Ok(Compiler {
                program,
                arguments: words.map(str::to_string).collect(),
            });
        }
    }
    Err(Error::Adapter(format!(
        "no C++ compiler to build the adapter with (tried {}): install one (g++ or clang++), or name one in CXX, or copy an \
         adapter built elsewhere by `graphpatch doctor --build` into $GRAPHPATCH_ADAPTER_DIR",
        lines.join(", ")
    )))
}

/// The cached adapter for `libtorch`; built first when it is not there, or when `again` says that the cached one is bad.
pub fn cached_or_built(libtorch: &Libtorch, again: bool) -> Result<PathBuf> {
    libtorch.check_version()?;
    let dir = cache::directory()?;
    let name = cache::file_name(libtorch);
    let target = dir.join(&name);
    if target.is_file() && !again {
        return Ok(target);
    }
    // Before anything is left in the cache.
    let (include, compiler) = (headers(libtorch)?, compiler()?);
    let lock =
        File::create(dir.join(format!("{name}.lock"))).map_err(|why| file_error(&dir, &why))?;
    let before = modified(&target);
    lock.lock().map_err(|why| file_error(&dir, &why))?;
    let ready = if again {
        modified(&target) != before
    } else {
        target.is_file()
    };
    if !ready {
        build(libtorch, include, &compiler, &dir, &target)?;
    }
    Ok(target)
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
fn headers(libtorch: &Libtorch) -> Result<&Path> {
    libtorch.include_dir.as_deref().ok_or_else(|| {
        Error::Adapter(format!(
            "the C++ headers of the libtorch in {} are not installed (looked for include/ATen/core/dispatch/Dispatcher.h): \
             install them, or name their directory in GRAPHPATCH_TORCH_INCLUDE, or copy an adapter built elsewhere by \
             `graphpatch doctor --build` into $GRAPHPATCH_ADAPTER_DIR",
            libtorch.lib_dir.display()
        ))
    })
}

fn build(
    libtorch: &Libtorch,
    include: &Path,
    compiler: &Compiler,
    dir: &Path,
    target: &Path,
) -> Result<()> {
    // In the cache directory, so that the rename stays on one file system.
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(dir)
        .map_err(|why| file_error(dir, &why))?;
    for (name, text) in sources::ADAPTER_SOURCES {
        let path = work.path().join(name);
        let parent = path.parent().unwrap_or(work.path());
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|why| file_error(&path, &why))?;
    }
    say(&format!(
        "building the adapter for libtorch {} (first use, about half a minute)…",
        libtorch.version
    ));
    let built = work.path().join("adapter.so");
    let arguments = arguments(libtorch, include, work.path(), &built)?;
    compile(compiler, &arguments, target, &built)?;
    std::fs::rename(&built, target).map_err(|why| file_error(target, &why))
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
    // Headers from 2.15 on need C++20, 2.4's take C++17; in between both work.
    let standard = if libtorch
        .version_numbers()
        .is_some_and(|version| version >= (2, 12))
    {
        "20"
    } else {
        "17"
    };
    let mut rpath = OsString::from("-Wl,-rpath,");
    rpath.push(&libtorch.lib_dir);
    let mut list: Vec<OsString> = vec![
        format!("-std=c++{standard}").into(),
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
    let mut command = Command::new(&compiler.program);
    command
        .args(&compiler.arguments)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(clone)
        .stderr(log);
    // The compiler is a process of its own, not one of the user's program.
    command.env_remove("LD_PRELOAD");
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GRAPHPATCH_"))
    {
        command.env_remove(name);
    }
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

/// One line for the person at the terminal; a closed stderr is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "graphpatch: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_tried_in_order() {
        let only = |have: &'static str| {
            move |name: &str| (name == have).then(|| PathBuf::from("/bin").join(name))
        };
        let found = choose_compiler(Some("ccache g++-12"), only("ccache")).expect("ccache");
        assert_eq!(
            found,
            Compiler {
                program: "/bin/ccache".into(),
                arguments: vec!["g++-12".into()]
            }
        );
        assert_eq!(
            choose_compiler(Some(" "), only("clang++"))
                .expect("clang")
                .program,
            Path::new("/bin/clang++")
        );
        let text = choose_compiler(Some("icpx"), |_| None)
            .expect_err("none")
            .to_string();
        assert!(
            text.contains("tried icpx, c++, g++, clang++") && text.contains("doctor --build"),
            "{text}"
        );
    }

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
