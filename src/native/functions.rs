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
                let functions = table.symbols().filter(|symbol| {
                    symbol.kind() == SymbolKind::Text && symbol.is_definition()
                });
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
        let after = self.all.partition_point(|function| function.begin <= address);
        let before = &self.all[..after];
        let last = before.last()?;
        if address - last.begin >= last.size {
            return None;
        }
        let same = |function: &&Function| (function.begin, function.size) == (last.begin, last.size);
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
