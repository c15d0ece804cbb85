//! Facts about a libtorch: its version, its ABI, where its headers are. They are read from its files, without loading it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{elf, environment};

/// The libtorch of a process or a program, as far as files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libtorch {
    /// The directory of `libtorch_cpu.so`.
    pub lib_dir: PathBuf,
    /// `libtorch_cpu.so` itself.
    pub cpu_so: PathBuf,
    /// The directory that holds `torch/` and `ATen/` headers, when they are installed.
    pub include_dir: Option<PathBuf>,
    /// For example `2.11.0`, or `unknown`.
    pub version: String,
    /// The ELF build id of `libtorch_cpu.so`, or a hash over its size and its ends when it has none.
    pub build_id: String,
    /// Whether `std::string` is the C++11 one.
    pub cxx11_abi: bool,
    /// The CUDA that `libtorch_cuda.so` beside it was built with (`13.0`, or `?`); none in a build for CPUs only.
    pub cuda: Option<String>,
}

/// Whether a file is named like the library that holds the dispatcher.
pub fn is_libtorch_cpu(path: &Path) -> bool {
    // Distributions version the file: libtorch_cpu.so.2.6.
    path.file_name()
        .and_then(OsStr::to_str)
        .and_then(|name| name.strip_prefix("libtorch_cpu.so"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Libtorch {
    /// Everything that files say about the libtorch whose `libtorch_cpu.so` is at `cpu_so`.
    pub fn describe(cpu_so: &Path) -> Libtorch {
        let cpu_so = std::path::absolute(cpu_so).unwrap_or_else(|_| cpu_so.to_path_buf());
        let lib_dir = cpu_so.parent().unwrap_or(Path::new("/")).to_path_buf();
        let mut homes = vec![lib_dir.clone()];
        if let Some(real) = cpu_so.canonicalize().ok().as_deref().and_then(Path::parent)
            && real != lib_dir
        {
            homes.push(real.to_path_buf());
        }
        let include_dir = include_dir(&homes);
        // Files beside the library are more reliable than the headers, whose folder the user may name.
        let version = homes
            .iter()
            .find_map(|home| version_of_files(home))
            .or_else(|| include_dir.as_deref().and_then(version_of_headers))
            .unwrap_or_else(|| "unknown".into());
        let mut libtorch = Libtorch {
            build_id: elf::build_id(&cpu_so),
            cxx11_abi: true,
            cuda: sibling(&homes, "libtorch_cuda.so").map(|library| cuda_version(&homes, &library)),
            lib_dir,
            cpu_so,
            include_dir,
            version,
        };
        if let Some(cxx11) = libtorch
            .c10_so()
            .and_then(|c10| elf::uses_cxx11_strings(&c10))
        {
            libtorch.cxx11_abi = cxx11;
        }
        libtorch
    }

    /// `libc10.so` beside it.
    pub fn c10_so(&self) -> Option<PathBuf> {
        let mut homes = vec![self.lib_dir.clone()];
        homes.extend(
            self.cpu_so
                .canonicalize()
                .ok()
                .and_then(|real| Some(real.parent()?.to_path_buf())),
        );
        sibling(&homes, "libc10.so")
    }

    /// Major and minor number, when known.
    pub fn version_numbers(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let digits = minor
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(minor.len());
        Some((major, minor[..digits].parse().ok()?))
    }

    /// The version that the headers say, where it is not the library's: they belong to another libtorch.
    pub fn foreign_headers(&self) -> Option<String> {
        let headers = version_of_headers(self.include_dir.as_deref()?)?;
        let numbers = |text: &str| -> Option<Vec<u32>> {
            let parts: Vec<u32> = text
                .split('.')
                .map_while(|part| part.parse().ok())
                .collect();
            (parts.len() >= 3).then(|| parts[..3].to_vec())
        };
        let same = numbers(&headers)? == numbers(&self.version)?;
        (!same).then_some(headers)
    }
}

/// The libtorch in a directory, which may be its `lib`, the folder of a Python package, an unpacked archive, or a folder
/// that holds one of these.
pub fn in_directory(dir: &Path) -> Option<Libtorch> {
    ["", "lib", "torch/lib", "libtorch/lib"]
        .iter()
        .find_map(|below| sibling(&[dir.join(below)], "libtorch_cpu.so"))
        .map(|path| Libtorch::describe(&path))
}

/// The file of that name, or of that name with a version appended, in the first of the folders that has one.
fn sibling(homes: &[PathBuf], name: &str) -> Option<PathBuf> {
    homes.iter().find_map(|home| {
        let exact = home.join(name);
        if exact.is_file() {
            return Some(exact);
        }
        std::fs::read_dir(home)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                let rest = path
                    .file_name()
                    .and_then(OsStr::to_str)
                    .and_then(|file| file.strip_prefix(name));
                rest.is_some_and(|rest| rest.starts_with('.')) && path.is_file()
            })
    })
}

const VERSION_HEADERS: [&str; 2] = [
    "torch/headeronly/version.h",
    "torch/csrc/api/include/torch/version.h",
];

/// `$GRAPHPATCH_TORCH_INCLUDE`, or where wheels, the libtorch archive, conda and distributions put the headers.
fn include_dir(homes: &[PathBuf]) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = environment::variable("GRAPHPATCH_TORCH_INCLUDE")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for home in homes {
        for up in home.ancestors().skip(1).take(2) {
            candidates.push(up.join("include"));
        }
        let pythons = std::fs::read_dir(home).into_iter().flatten().flatten();
        candidates.extend(pythons.map(|entry| entry.path().join("site-packages/torch/include")));
    }
    candidates
        .into_iter()
        .find(|dir| dir.join("ATen/core/dispatch/Dispatcher.h").is_file())
}

fn version_of_headers(include: &Path) -> Option<String> {
    VERSION_HEADERS.iter().find_map(|header| {
        let text = std::fs::read_to_string(include.join(header)).ok()?;
        let number = |name: &str| {
            text.lines().find_map(|line| {
                let rest = line
                    .trim()
                    .strip_prefix("#define")?
                    .trim()
                    .strip_prefix(name)?;
                rest.trim().parse::<u32>().ok()
            })
        };
        Some(format!(
            "{}.{}.{}",
            number("TORCH_VERSION_MAJOR")?,
            number("TORCH_VERSION_MINOR")?,
            number("TORCH_VERSION_PATCH")?
        ))
    })
}

/// `build-version` of the libtorch archive, or `version.py` of a wheel without headers.
fn version_of_files(lib_dir: &Path) -> Option<String> {
    let home = lib_dir.parent()?;
    if let Ok(text) = std::fs::read_to_string(home.join("build-version")) {
        return Some(plain_version(text.trim()));
    }
    let text = std::fs::read_to_string(home.join("version.py")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__"))?;
    let value = line.split(['\'', '"']).nth(1)?;
    Some(plain_version(value))
}

/// The CUDA version in a wheel's `version.py`, else that of the CUDA runtime that the library needs (`13`), else `?`.
fn cuda_version(homes: &[PathBuf], library: &Path) -> String {
    let written = homes.iter().find_map(|home| {
        let text = std::fs::read_to_string(home.parent()?.join("version.py")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("cuda"))?;
        line.split(['\'', '"']).nth(1).map(str::to_string)
    });
    let needed = || {
        let needed = elf::dynamic(library)?.needed;
        needed
            .iter()
            .find_map(|name| name.strip_prefix("libcudart.so.").map(str::to_string))
    };
    written.or_else(needed).unwrap_or_else(|| "?".into())
}

/// Without the local part: `2.11.0+cu130` is `2.11.0`.
fn plain_version(text: &str) -> String {
    text.split('+').next().unwrap_or(text).to_string()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn libtorch(version: &str) -> Libtorch {
        Libtorch {
            lib_dir: "/opt/torch/lib".into(),
            cpu_so: "/opt/torch/lib/libtorch_cpu.so".into(),
            include_dir: None,
            version: version.into(),
            build_id: "00ff".into(),
            cxx11_abi: true,
            cuda: None,
        }
    }

    #[test]
    fn versions() {
        assert_eq!(libtorch("2.11.0").version_numbers(), Some((2, 11)));
        assert_eq!(libtorch("2.12rc1").version_numbers(), Some((2, 12)));
        assert_eq!(libtorch("unknown").version_numbers(), None);
        assert_eq!(plain_version("2.11.0+cu130"), "2.11.0");
    }

    #[test]
    fn file_names() {
        assert!(is_libtorch_cpu(Path::new("/x/libtorch_cpu.so")));
        assert!(is_libtorch_cpu(Path::new("/x/libtorch_cpu.so.2.6")));
        assert!(!is_libtorch_cpu(Path::new("/x/libtorch_cpu.sox")));
        assert!(!is_libtorch_cpu(Path::new("/x/libtorch.so")));
    }

    #[test]
    fn versions_from_files() {
        let dir = tempfile::tempdir().expect("temp dir");
        let lib = dir.path().join("lib");
        let header = dir.path().join("include/torch/headeronly/version.h");
        std::fs::create_dir_all(&lib).expect("lib");
        std::fs::create_dir_all(header.parent().expect("parent")).expect("include");
        std::fs::write(&header, "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 7\n#define TORCH_VERSION_PATCH 1\n")
            .expect("header");
        assert_eq!(
            version_of_headers(&dir.path().join("include")).as_deref(),
            Some("2.7.1")
        );
        std::fs::write(
            dir.path().join("version.py"),
            "from x import y\n__version__ = '2.9.0+cpu'\n",
        )
        .expect("py");
        assert_eq!(version_of_files(&lib).as_deref(), Some("2.9.0"));
        std::fs::write(dir.path().join("build-version"), "2.10.1+cu126\n").expect("bv");
        assert_eq!(version_of_files(&lib).as_deref(), Some("2.10.1"));
    }
}
