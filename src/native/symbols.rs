//! Addresses in files become functions, source files and lines.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::Loader;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol, ReadCache, SymbolKind};
use rustc_hash::FxHashMap;

use super::Place;

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
    known: FxHashMap<Place, Vec<Line>>,
}

/// What one file tells.
#[derive(Default)]
struct Names {
    lines: Option<Loader>,
    /// Begin, size and name of each function, in order.
    functions: Option<Vec<(u64, u64, String)>>,
}

impl Symbols {
    /// The calls that an address stands for, innermost last: several where some were inlined, none where it is in the
    /// inside of libtorch's headers or of a language's own library.
    pub fn lines(&mut self, place: &Place) -> &[Line] {
        let Symbols { files, known } = self;
        known.entry(place.clone()).or_insert_with(|| {
            let names = files
                .entry(place.file.clone())
                .or_insert_with(|| Names::open(&place.file));
            // Debug information may be damaged in ways that its readers do not expect.
            let read = || names.lines(place);
            catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| vec![unnamed(place)])
        })
    }
}

impl Names {
    fn open(file: &Path) -> Names {
        let lines = catch_unwind(|| {
            let stripped = separate(file).and_then(|file| Loader::new(file).ok());
            stripped.or_else(|| Loader::new(file).ok())
        });
        Names {
            lines: lines.unwrap_or_default(),
            functions: None,
        }
    }

    fn lines(&mut self, place: &Place) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut named = false;
        let frames = self.lines.as_ref();
        if let Some(Ok(mut frames)) = frames.map(|lines| lines.find_frames(place.address)) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = frame
                    .function
                    .and_then(|f| Some(demangle(&f.raw_name().ok()?)))
                else {
                    continue;
                };
                named = true;
                let location = frame.location;
                let file = location.as_ref().and_then(|location| location.file);
                if is_users(&function) {
                    lines.push(Line {
                        file: file.map_or_else(|| place.file.display().to_string(), str::to_owned),
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
        let mut line = unnamed(place);
        if let Some(name) = self.function(place) {
            line.function = demangle(name);
        }
        match is_users(&line.function) {
            true => vec![line],
            false => Vec::new(),
        }
    }

    /// The function around an address, from the symbol tables.
    fn function(&mut self, place: &Place) -> Option<&str> {
        let functions = self
            .functions
            .get_or_insert_with(|| functions(&place.file).unwrap_or_default());
        let after = functions.partition_point(|(begin, ..)| *begin <= place.address);
        let (begin, size, name) = functions.get(after.checked_sub(1)?)?;
        (place.address - begin < *size).then_some(name)
    }
}

fn unnamed(place: &Place) -> Line {
    Line {
        file: place.file.display().to_string(),
        line: 0,
        function: format!("{:#x}", place.address),
    }
}

fn functions(file: &Path) -> Option<Vec<(u64, u64, String)>> {
    let data = ReadCache::new(File::open(file).ok()?);
    let elf = ElfFile64::<object::Endianness, _>::parse(&data).ok()?;
    let mut functions: Vec<_> = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            Some((
                symbol.address(),
                symbol.size(),
                symbol.name().ok()?.to_owned(),
            ))
        })
        .collect();
    functions.sort();
    Some(functions)
}

/// Where a distribution keeps the debug information of a stripped file.
fn separate(file: &Path) -> Option<PathBuf> {
    let data = ReadCache::new(File::open(file).ok()?);
    let elf = ElfFile64::<object::Endianness, _>::parse(&data).ok()?;
    let id: String = elf
        .build_id()
        .ok()??
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (folder, name) = id.split_at_checked(2)?;
    let file = PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{name}.debug"));
    file.is_file().then_some(file)
}

/// A function's name without arguments, template's result or hash.
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
/// How functions outside of namespaces begin that are theirs.
const PREFIXES: &[&str] = &["gp_", "atg_", "__libc_start", "__rust", "_start", "_FUN"];

fn is_users(function: &str) -> bool {
    let name = function.trim_start_matches('<');
    let within = |space: &&str| {
        name.strip_prefix(*space)
            .is_some_and(|rest| rest.starts_with("::"))
    };
    !NAMESPACES.iter().any(within) && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
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
    fn this_test_has_a_name_and_a_line() {
        let places = Modules::now().places(&Stack::here());
        let mut symbols = Symbols::default();
        let lines: Vec<Line> = places
            .iter()
            .flat_map(|place| symbols.lines(place).to_vec())
            .collect();
        // Our own functions are left out, and with them all of this program's but `main`.
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
            let place = Place {
                file: file.as_path().into(),
                address: 0x1234,
            };
            let expected = Line {
                file: file.display().to_string(),
                line: 0,
                function: "0x1234".to_owned(),
            };
            assert_eq!(Symbols::default().lines(&place), [expected]);
        }
    }
}
