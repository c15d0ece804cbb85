//! Addresses in files become functions, source files and lines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use addr2line::Loader;
use rustc_hash::FxHashMap;

use graphpatch_core::graph::CodeAddress;

use super::functions::Functions;
use super::separate::separate;

/// A place in the user's source, as far as the program's file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The source file; where there is no debug information, the program or library.
    pub file: String,
    /// 0 where it is not known.
    pub line: u32,
    /// Without arguments; where the file has no name for it, the offset in the file.
    pub function: String,
}

/// Reads files' debug information. What was read is kept until this is dropped.
#[derive(Default)]
pub struct Symbols {
    files: FxHashMap<Arc<Path>, Names>,
    known: FxHashMap<CodeAddress, Vec<Line>>,
}

/// What one file tells.
#[derive(Default)]
struct Names {
    lines: Option<Loader>,
    functions: Functions,
}

impl Symbols {
    /// The calls that an address stands for, innermost last. There are several if calls were inlined, and none if the address
    /// lies in code of libtorch's headers or of a language's own library.
    pub fn lines(&mut self, address: &CodeAddress) -> &[Line] {
        let Symbols { files, known } = self;
        known.entry(address.clone()).or_insert_with(|| {
            let names = files
                .entry(address.file.clone())
                .or_insert_with(|| Names::open(&address.file));
            // Debug information may be damaged in ways that its readers do not expect.
            let read = || names.lines(address);
            catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| vec![unnamed(address)])
        })
    }
}

impl Names {
    fn open(file: &Path) -> Names {
        let read = || {
            let apart = separate(file);
            let files = || apart.as_deref().into_iter().chain([file]);
            Names {
                lines: files().find_map(|file| Loader::new(file).ok()),
                functions: Functions::open(files()),
            }
        };
        catch_unwind(read).unwrap_or_default()
    }

    fn lines(&self, address: &CodeAddress) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut named = false;
        // Debug information gives a function in an unnamed namespace without that namespace; its symbol has the whole name.
        // Frames of inlined calls come first, that of the function itself last.
        let symbol = self.functions.name(address.address);
        let symbol = symbol.map(|name| demangle(&name));
        let frames = self.lines.as_ref();
        if let Some(Ok(mut frames)) = frames.map(|lines| lines.find_frames(address.address)) {
            let mut found = Vec::new();
            while let Ok(Some(frame)) = frames.next() {
                found.push(frame);
            }
            let outermost = found.len().saturating_sub(1);
            for (at, frame) in found.into_iter().enumerate() {
                let Some(name) = frame.function.as_ref().and_then(|f| f.raw_name().ok()) else {
                    continue;
                };
                let function = match &symbol {
                    Some(whole) if at == outermost && whole.ends_with(&*name) => whole.clone(),
                    _ => demangle(&name),
                };
                named = true;
                let location = frame.location;
                let file = location.as_ref().and_then(|location| location.file);
                if is_users(&function) && !file.is_some_and(is_header) {
                    lines.push(Line {
                        file: file
                            .map_or_else(|| address.file.display().to_string(), str::to_owned),
                        line: location.and_then(|location| location.line).unwrap_or(0),
                        function,
                    });
                }
            }
        }
        lines.reverse();
        if named {
            return lines;
        }
        let mut line = unnamed(address);
        if let Some(name) = symbol {
            line.function = name;
        }
        match is_users(&line.function) {
            true => vec![line],
            false => Vec::new(),
        }
    }
}

fn unnamed(address: &CodeAddress) -> Line {
    Line {
        file: address.file.display().to_string(),
        line: 0,
        function: format!("{:#x}", address.address),
    }
}

/// A function's name without its arguments, without the result type of a template, and without Rust's hash.
fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let options = cpp_demangle::DemangleOptions::new()
        .no_params()
        .no_return_type();
    cpp_demangle::Symbol::new(name)
        .ok()
        .and_then(|symbol| symbol.demangle_with_options(&options).ok())
        .unwrap_or_else(|| name.to_owned())
}

/// Namespaces of libtorch's headers and wrappers, of ours, and of the languages' own libraries.
const NAMESPACES: &[&str] = &[
    "at",
    "c10",
    "torch",
    "caffe2",
    "graphpatch",
    "std",
    "__gnu_cxx",
    "core",
    "alloc",
    "tch",
    "torch_sys",
];
/// How the names of their functions begin that lie in no namespace.
const PREFIXES: &[&str] = &["gp_", "atg_", "__libc_start", "__rust", "_start"];
/// What a compiler calls the function that a lambda without captures turns into: the lambda itself is called from it.
const OF_LAMBDA: &str = "_FUN";

/// Pairs of a folder and a folder in it that hold headers of libtorch or of the C++ library. Functions in these headers are
/// found by their file, since their names may lack the namespace or contain the user's types.
const HEADERS: &[[&str; 2]] = &[
    ["include", "ATen"],
    ["include", "c10"],
    ["include", "torch"],
    ["torch", "csrc"],
    ["include", "c++"],
];

/// Whether a source file is one of libtorch's, our own or the C++ library's headers.
fn is_header(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    let Some((name, folders)) = parts.split_last() else {
        return false;
    };
    let ours = folders.last() == Some(&"graphpatch") && name.ends_with(".hpp");
    let theirs = |pair: &[&str]| HEADERS.iter().any(|header| header == pair);
    ours || *name == "graphpatch.hpp" || folders.windows(2).any(theirs)
}

fn is_users(function: &str) -> bool {
    let name = function.trim_start_matches('<');
    let within = |space: &&str| {
        name.strip_prefix(*space)
            .is_some_and(|rest| rest.starts_with("::"))
    };
    !name.ends_with(OF_LAMBDA)
        && !NAMESPACES.iter().any(within)
        && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::{Modules, Stack};
    use super::*;

    #[test]
    fn names_are_short_and_the_users() {
        for (mangled, name, users) in [
            ("_ZN4tree5LayerE", "tree::Layer", true),
            ("_ZN5Block7forwardERKN2at6TensorE", "Block::forward", true),
            (
                "_ZN2at3addERKNS_6TensorES2_RKN3c106ScalarE",
                "at::add",
                false,
            ),
            ("_Z5twiceIiET_S0_", "twice<int>", true),
            ("_ZN4main5inner17h0123456789abcdefE", "main::inner", true),
            ("main", "main", true),
            ("_start", "_start", false),
            ("_Zgarbage", "_Zgarbage", true),
        ] {
            assert_eq!(demangle(mangled), name);
            assert_eq!(is_users(name), users, "{name}");
        }
    }

    #[test]
    fn headers_are_known_by_their_folders() {
        for (file, header) in [
            ("/opt/libtorch/include/c10/core/Scalar.h", true),
            (
                "/venv/torch/include/torch/csrc/api/include/torch/nn/pimpl.h",
                true,
            ),
            ("/usr/include/c++/12/bits/stl_vector.h", true),
            ("/usr/local/include/graphpatch.hpp", true),
            ("/usr/local/include/graphpatch/scope.hpp", true),
            ("/srv/me/include/model.h", false),
            ("/srv/me/graphpatch/model.cpp", false),
            ("torch/model.h", false),
        ] {
            assert_eq!(is_header(file), header, "{file}");
        }
    }

    #[test]
    fn this_test_has_a_name_and_a_line() {
        let addresses = Modules::now().addresses(&Stack::here());
        let mut symbols = Symbols::default();
        let lines: Vec<Line> = addresses
            .iter()
            .flat_map(|address| symbols.lines(address).to_vec())
            .collect();
        // Functions of this project are left out, which are all of this test program's but `main`.
        assert!(
            lines.iter().all(|line| is_users(&line.function)),
            "{lines:?}"
        );
    }

    #[test]
    fn files_that_tell_nothing_leave_an_offset() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no program").unwrap();
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let cut = folder.path().join("cut");
        std::fs::write(&cut, &program[..program.len() / 3]).unwrap();
        for file in [text, cut, folder.path().join("absent")] {
            let address = CodeAddress {
                file: file.as_path().into(),
                address: 0x1234,
            };
            let expected = Line {
                file: file.display().to_string(),
                line: 0,
                function: "0x1234".to_owned(),
            };
            assert_eq!(Symbols::default().lines(&address), [expected]);
        }
    }
}
