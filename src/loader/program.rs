//! Which libtorch a program would load, from its files alone: the dynamic linker's search, retraced.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::elf::{self, Dynamic};
use super::environment;
use super::libtorch::{Libtorch, is_libtorch_cpu};

/// What the files of a program say about its libtorch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// The libtorch that the program links to; for a Python interpreter or script, that of its torch package. None if it links
    /// to none; it may still load one later.
    pub libtorch: Option<Libtorch>,
    /// The Python interpreter, if the program is one or is a script for one.
    pub python: Option<PathBuf>,
    /// The libraries that were looked at on the way.
    pub looked: Vec<PathBuf>,
    /// The libraries that are needed but not found.
    pub missing: Vec<String>,
}

/// Looks for the libtorch that `program` would load.
pub fn find_for_program(program: &Path) -> Found {
    let program = resolved_script(program);
    if is_python(&program) {
        return Found {
            libtorch: of_python(&program),
            python: Some(program),
            ..Found::default()
        };
    }
    let mut found = Found::default();
    let cpu_so = Search::from_environment().find(&program, is_libtorch_cpu, &mut found);
    found.libtorch = cpu_so.map(|path| Libtorch::describe(&path));
    found
}

/// `name` as a shell would find it: a path when it has a slash, else the first executable file of that name in `PATH`.
pub fn find_in_path(name: &OsStr) -> Option<PathBuf> {
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| executable(path));
    }
    let path = environment::variable("PATH")
        .unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}

/// The interpreter, if `program` is a script that names one. A `python` that is itself a script (pyenv's) is returned as is.
fn resolved_script(program: &Path) -> PathBuf {
    if is_python(program) {
        return program.to_path_buf();
    }
    interpreter(program).unwrap_or_else(|| program.to_path_buf())
}

fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    BufReader::new(std::fs::File::open(program).ok()?.take(256))
        .read_until(b'\n', &mut line)
        .ok()?;
    let text = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    let mut words = text.split_whitespace();
    let first = Path::new(words.next()?);
    if first.file_name() == Some(OsStr::new("env")) {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        return find_in_path(OsStr::new(name));
    }
    Some(first.to_path_buf())
}

fn is_python(program: &Path) -> bool {
    program
        .file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| {
            let rest = name
                .strip_prefix("python")
                .or_else(|| name.strip_prefix("pypy"));
            rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        })
}

/// Asks the interpreter where its torch package is, without importing it.
fn of_python(python: &Path) -> Option<Libtorch> {
    const ASK: &str = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s and s.origin else '')";
    let answer = Command::new(python)
        .args(["-c", ASK])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let home = Path::new(text.lines().last()?).parent()?;
    Some(home.join("lib/libtorch_cpu.so"))
        .filter(|path| path.is_file())
        .map(|path| Libtorch::describe(&path))
}

/// The dynamic linker's search path, as far as it is not written in the files.
struct Search {
    library_path: Vec<String>,
    /// The dynamic linker's cache, read when a library is looked for in it first.
    cache: LazyCell<Vec<u8>>,
    defaults: Vec<PathBuf>,
}

/// A library or program met on the way, with the RPATHs that it inherits from those that loaded it.
struct Visited {
    path: PathBuf,
    dynamic: Dynamic,
    inherited: Vec<PathBuf>,
}

impl Search {
    fn from_environment() -> Search {
        let library_path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        Search {
            library_path: elf::directories(&library_path.replace(';', ":")).collect(),
            cache: LazyCell::new(|| std::fs::read("/etc/ld.so.cache").unwrap_or_default()),
            defaults: ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
                .map(PathBuf::from)
                .to_vec(),
        }
    }

    /// Breadth first over `DT_NEEDED`, as the dynamic linker loads; the first path that `wanted` accepts.
    fn find(
        &self,
        program: &Path,
        wanted: impl Fn(&Path) -> bool,
        found: &mut Found,
    ) -> Option<PathBuf> {
        let mut seen: HashSet<String> = HashSet::new();
        let mut queue = std::collections::VecDeque::new();
        let dynamic = elf::dynamic(program)?;
        // $ORIGIN is the real place of the program, not that of a link to it.
        let path = program
            .canonicalize()
            .unwrap_or_else(|_| program.to_path_buf());
        queue.push_back(Visited {
            path,
            dynamic,
            inherited: Vec::new(),
        });
        while let Some(met) = queue.pop_front() {
            let own = |list: &[String]| -> Vec<PathBuf> {
                list.iter().map(|dir| expand(dir, &met.path)).collect()
            };
            // A RUNPATH switches RPATHs off, the inherited ones too, for what this object itself needs.
            let mut rpaths = own(&met.dynamic.rpath);
            rpaths.extend(met.inherited.iter().cloned());
            let before = if met.dynamic.runpath.is_empty() {
                rpaths.clone()
            } else {
                Vec::new()
            };
            let after = own(&met.dynamic.runpath);
            for name in &met.dynamic.needed {
                if !seen.insert(name.clone()) {
                    continue;
                }
                let Some(path) = self.locate(name, &before, &after) else {
                    found.missing.push(name.clone());
                    continue;
                };
                found.looked.push(path.clone());
                if wanted(&path) {
                    return Some(path);
                }
                let Some(dynamic) = elf::dynamic(&path) else {
                    continue;
                };
                queue.push_back(Visited {
                    path,
                    dynamic,
                    inherited: rpaths.clone(),
                });
            }
        }
        None
    }

    fn locate(&self, name: &str, before: &[PathBuf], after: &[PathBuf]) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_file());
        }
        let environment = self.library_path.iter().map(PathBuf::from);
        let named = before
            .iter()
            .cloned()
            .chain(environment)
            .chain(after.iter().cloned());
        let good = |path: &PathBuf| path.is_file() && elf::dynamic(path).is_some();
        let mut found = named.map(|dir| dir.join(name));
        if let Some(found) = found.find(good) {
            return Some(found);
        }
        cached(&self.cache, name)
            .into_iter()
            .chain(self.defaults.iter().map(|dir| dir.join(name)))
            .find(good)
    }
}

/// `$ORIGIN` and `$LIB` in a directory of RPATH or RUNPATH.
fn expand(dir: &str, object: &Path) -> PathBuf {
    let origin = object.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let lib = if Path::new("/usr/lib64/libc.so.6").exists() {
        "lib64"
    } else {
        "lib"
    };
    let expanded = [
        ("${ORIGIN}", &*origin),
        ("$ORIGIN", &*origin),
        ("${LIB}", lib),
        ("$LIB", lib),
    ]
    .iter()
    .fold(dir.to_string(), |text, (token, value)| {
        text.replace(token, value)
    });
    PathBuf::from(expanded)
}

/// The paths of the libraries of this name in the bytes of `/etc/ld.so.cache` (glibc's present format; the old one has it appended).
fn cached(bytes: &[u8], name: &str) -> Vec<PathBuf> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    let start = bytes
        .windows(MAGIC.len())
        .position(|window| window == MAGIC);
    let cache = &bytes[start.unwrap_or(bytes.len())..];
    let word = |at: usize| -> Option<usize> {
        let four = cache.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]) as usize)
    };
    let is_name = |text: &[u8]| {
        let behind = text.strip_prefix(name.as_bytes());
        behind.is_some_and(|behind| behind.first().is_none_or(|byte| *byte == 0))
    };
    let path = |text: &[u8]| {
        let path = text.split(|byte| *byte == 0).next().unwrap_or_default();
        PathBuf::from(OsStr::from_bytes(path))
    };
    let count = word(MAGIC.len()).unwrap_or(0);
    (0..count)
        .map_while(|index| {
            let entry = HEADER + index * ENTRY;
            let text = |at: usize| cache.get(word(at)?..);
            Some((text(entry + 4)?, text(entry + 8)?))
        })
        .filter(|(text, _)| is_name(text))
        .map(|(_, text)| path(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_and_lib() {
        let object = Path::new("/opt/app/bin/infer");
        assert_eq!(
            expand("$ORIGIN/../lib", object),
            Path::new("/opt/app/bin/../lib")
        );
        assert_eq!(expand("${ORIGIN}", object), Path::new("/opt/app/bin"));
        assert_eq!(expand("/usr/lib", object), Path::new("/usr/lib"));
    }

    #[test]
    fn pythons() {
        for good in [
            "/usr/bin/python",
            "python3",
            "/x/.venv/bin/python3.11",
            "pypy3",
        ] {
            assert!(is_python(Path::new(good)), "{good}");
        }
        for bad in ["/usr/bin/python-config", "perl", "pythonic"] {
            assert!(!is_python(Path::new(bad)), "{bad}");
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let dir = tempfile::tempdir().expect("dir");
        let script = dir.path().join("s");
        std::fs::write(&script, "#! /bin/sh -e\necho\n").expect("write");
        assert_eq!(interpreter(&script).as_deref(), Some(Path::new("/bin/sh")));
        std::fs::write(&script, "#!/usr/bin/env -S A=1 sh\n").expect("write");
        assert_eq!(interpreter(&script), find_in_path(OsStr::new("sh")));
        assert!(interpreter(Path::new("/bin/sh")).is_none());
        assert!(find_in_path(OsStr::new("no-such-program-here")).is_none());
        assert!(find_in_path(script.as_os_str()).is_none(), "not executable");
    }

    #[test]
    fn damaged_caches_are_empty() {
        assert!(cached(b"", "libc.so.6").is_empty());
        assert!(cached(b"glibc-ld.so.cache1.1", "libc.so.6").is_empty());
        let mut cut = b"glibc-ld.so.cache1.1".to_vec();
        cut.extend(5u32.to_ne_bytes());
        cut.extend([0u8; 40]);
        assert!(cached(&cut, "").len() <= 1, "stops where the bytes do");
        if let Ok(bytes) = std::fs::read("/etc/ld.so.cache") {
            let found = cached(&bytes, "libc.so.6");
            assert!(found.iter().any(|path| path.is_file()), "{found:?}");
            assert!(cached(&bytes, "libc.so.").is_empty(), "a part of a name");
            assert!(cached(&bytes, "libc.so.6x").is_empty());
        }
    }

    #[test]
    fn this_program_finds_its_libc() {
        let own = std::env::current_exe().expect("exe");
        let mut found = Found::default();
        let libc = |path: &Path| path.to_string_lossy().contains("libc.so");
        let path = Search::from_environment().find(&own, libc, &mut found);
        assert_eq!(path.as_ref(), found.looked.last());
        assert!(path.is_some());
        let found = find_for_program(&own);
        assert_eq!(found.libtorch, None);
        assert!(found.looked.iter().any(|path| libc(path)) && found.missing.is_empty());
    }
}
