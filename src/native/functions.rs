//! Which function an address of a file lies in, by the file's symbol tables.

use std::fs::File;
use std::path::Path;

use object::read::SymbolIndex;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol, ObjectSymbolTable, ReadCache, SymbolKind};

type Elf<'a> = ElfFile64<'a, object::Endianness, &'a ReadCache<File>>;

/// The functions of a program, of which there may be several files. A large program has hundreds of thousands, and few are asked for:
/// a name is read when it is asked for.
#[derive(Default)]
pub(super) struct Functions {
    files: Vec<ReadCache<File>>,
    /// In order.
    all: Vec<Function>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    begin: u64,
    size: u64,
    file: usize,
    dynamic: bool,
    index: usize,
}

impl Functions {
    pub fn open<'a>(files: impl Iterator<Item = &'a Path>) -> Functions {
        let files: Vec<_> = files
            .filter_map(|file| Some(ReadCache::new(File::open(file).ok()?)))
            .collect();
        let mut all = Vec::new();
        for (file, data) in files.iter().enumerate() {
            let Ok(elf) = Elf::parse(data) else {
                continue;
            };
            for dynamic in [false, true] {
                let Some(table) = table(&elf, dynamic) else {
                    continue;
                };
                let functions = table
                    .symbols()
                    .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
                all.extend(functions.map(|symbol| Function {
                    begin: symbol.address(),
                    size: symbol.size(),
                    file,
                    dynamic,
                    index: symbol.index().0,
                }));
            }
        }
        all.sort_unstable();
        Functions { files, all }
    }

    /// The name of the function around an address. Where several have the same code, that of the last one by name.
    pub fn name(&self, address: u64) -> Option<String> {
        let after = self
            .all
            .partition_point(|function| function.begin <= address);
        let before = &self.all[..after];
        let last = before.last()?;
        if address - last.begin >= last.size {
            return None;
        }
        let same =
            |function: &&Function| (function.begin, function.size) == (last.begin, last.size);
        before
            .iter()
            .rev()
            .take_while(same)
            .filter_map(|function| self.name_of(function))
            .max()
    }

    fn name_of(&self, function: &Function) -> Option<String> {
        let elf = Elf::parse(self.files.get(function.file)?).ok()?;
        let symbol = table(&elf, function.dynamic)?
            .symbol_by_index(SymbolIndex(function.index))
            .ok()?;
        Some(symbol.name().ok()?.to_owned())
    }
}

fn table<'a, 'f>(
    elf: &'f Elf<'a>,
    dynamic: bool,
) -> Option<<Elf<'a> as Object<'a>>::SymbolTable<'f>> {
    match dynamic {
        true => elf.dynamic_symbol_table(),
        false => elf.symbol_table(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search through all symbols of this program finds.
    fn searched(elf: &Elf<'_>, address: u64) -> Option<String> {
        let functions = elf.symbols().chain(elf.dynamic_symbols()).filter(|symbol| {
            symbol.kind() == SymbolKind::Text
                && symbol.is_definition()
                && symbol.address() <= address
        });
        let (begin, size, name) = functions
            .map(|symbol| (symbol.address(), symbol.size(), symbol.name().unwrap()))
            .max()?;
        (address - begin < size).then(|| name.to_owned())
    }

    #[test]
    fn names_are_those_that_a_search_finds() {
        let file = std::env::current_exe().unwrap();
        let functions = Functions::open([file.as_path()].into_iter());
        let data = ReadCache::new(File::open(&file).unwrap());
        let elf = Elf::parse(&data).unwrap();
        let mut named = 0;
        for function in functions.all.iter().step_by(functions.all.len() / 40 + 1) {
            for address in [
                function.begin,
                function.begin + function.size / 2,
                function.begin + function.size,
            ] {
                let name = functions.name(address);
                assert_eq!(name, searched(&elf, address), "{address:#x}");
                named += usize::from(name.is_some());
            }
        }
        assert!(named > 40, "{named}");
        assert_eq!(functions.name(0), None);
    }

    #[test]
    fn files_that_are_no_programs_have_no_functions() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no program").unwrap();
        let files = [text, folder.path().join("absent")];
        let functions = Functions::open(files.iter().map(|file| file.as_path()));
        assert_eq!(functions.name(16), None);
    }
}
