//! A file that a process has mapped: the addresses of its symbols there, and of some instructions.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};

use super::maps::Mapping;

/// One file in one process.
pub struct Image {
    /// Its code, in the process's addresses.
    pub code: Range<u64>,
    /// Functions that it exports: where, how long, and the name. Sorted by the place.
    functions: Vec<(u64, u64, String)>,
    bytes: Vec<u8>,
    bias: u64,
    segments: Vec<Segment>,
}

/// A part of the file that is loaded.
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    executable: bool,
}

/// `path` as the process sees it.
fn seen_by(pid: u32, path: &Path) -> PathBuf {
    let below = path.strip_prefix("/").unwrap_or(path);
    PathBuf::from(format!("/proc/{pid}/root")).join(below)
}

impl Image {
    /// Reads the file that `first` maps the beginning of.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub fn read(pid: u32, all: &[Mapping], first: &Mapping) -> Result<Image, String> {
        let name = first.path.display();
        let file = seen_by(pid, &first.path);
        let same = file
            .metadata()
            .is_ok_and(|found| found.ino() == first.inode);
        if !same {
            return Err(format!(
                "has {name} loaded, which was replaced since: restart it"
            ));
        }
        let bytes = std::fs::read(&file).map_err(|why| format!("has {name} loaded: {why}"))?;
        let code = all
            .iter()
            .filter(|one| one.inode == first.inode && one.path == first.path && one.executable)
            .map(|one| one.range.clone())
            .reduce(|one, two| one.start.min(two.start)..one.end.max(two.end));
        let parsed = || {
            let elf = ElfFile64::<Endianness>::parse(&*bytes).ok()?;
            let (segments, bias) = segments(&elf, first)?;
            Some((functions(&elf, bias), segments, bias))
        };
        let (Some((functions, segments, bias)), Some(code)) = (parsed(), code) else {
            return Err(format!(
                "has {name} loaded, which is no library that is known"
            ));
        };
        Ok(Image {
            code,
            functions,
            bytes,
            bias,
            segments,
        })
    }

    /// Where the function is that the file exports under this name.
    pub fn function(&self, name: &str) -> Option<u64> {
        let found = self.functions.iter().find(|(_, _, own)| own == name);
        found.map(|(place, _, _)| *place)
    }

    /// The names of the exported function that this address lies in; none where it lies in no exported one.
    pub fn names_at(&self, address: u64) -> impl Iterator<Item = &str> {
        self.functions
            .iter()
            .filter(move |(place, size, _)| (*place..place + size).contains(&address))
            .map(|(_, _, name)| name.as_str())
    }

    /// Where these instructions stand in its code, from `from` on.
    pub fn instructions(&self, wanted: &[u8], from: Option<u64>) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.executable)
            .find_map(|segment| {
                let address = segment.address + self.bias;
                let skipped = from.map_or(Some(0), |from| from.checked_sub(address))?;
                let begin = usize::try_from(segment.offset + skipped).ok()?;
                let end = usize::try_from(segment.offset + segment.size).ok()?;
                let code = self.bytes.get(begin..end.min(self.bytes.len()))?;
                let at = code.windows(wanted.len()).position(|part| part == wanted)?;
                Some(address + skipped + at as u64)
            })
    }
}

/// How far from the beginning of a file's mapping the function lies that it exports under this name.
pub fn offset_of(file: &Path, name: &str) -> Option<u64> {
    let bytes = std::fs::read(file).ok()?;
    let elf = ElfFile64::<Endianness>::parse(&*bytes).ok()?;
    let endian = elf.endian();
    let begin = elf
        .elf_program_headers()
        .iter()
        .find(|header| header.p_type(endian) == object::elf::PT_LOAD)?
        .p_vaddr(endian);
    let found = elf
        .dynamic_symbols()
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
    found.address().checked_sub(begin & !0xfff)
}

fn segments(elf: &ElfFile64<'_, Endianness>, first: &Mapping) -> Option<(Vec<Segment>, u64)> {
    let endian = elf.endian();
    let loaded: Vec<Segment> = elf
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(endian) == object::elf::PT_LOAD)
        .map(|header| Segment {
            address: header.p_vaddr(endian),
            offset: header.p_offset(endian),
            size: header.p_filesz(endian),
            executable: header.p_flags(endian).contains(object::elf::PF_X),
        })
        .collect();
    let begin = loaded.iter().find(|part| part.offset <= first.offset)?;
    let bias = first.range.start.checked_sub(begin.address & !0xfff)?;
    Some((loaded, bias))
}

fn functions(elf: &ElfFile64<'_, Endianness>, bias: u64) -> Vec<(u64, u64, String)> {
    let mut found: Vec<(u64, u64, String)> = elf
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.kind() == object::SymbolKind::Text)
        .filter_map(|symbol| {
            let name = symbol.name().ok()?.to_owned();
            Some((symbol.address() + bias, symbol.size(), name))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps;

    #[test]
    fn libc_is_read() {
        let pid = std::process::id();
        let all = maps::of(pid).expect("maps");
        let is_libc = |one: &&Mapping| one.path.ends_with("libc.so.6");
        let first = all.iter().find(is_libc).expect("libc");
        let libc = Image::read(pid, &all, first).expect("read");
        let known = libc::getppid as *const () as u64;
        let found = libc.function("getppid").expect("getppid");
        assert!(libc.code.contains(&found));
        assert!(libc.names_at(found + 2).any(|name| name == "getppid"));
        // The program may call it through a stub of its own, which lies elsewhere.
        if libc.code.contains(&known) {
            assert_eq!(known, found);
        }
        let offset = offset_of(&first.path, "getppid").expect("offset");
        assert_eq!(first.range.start + offset, found);
        assert_eq!(offset_of(&first.path, "no_such_function"), None);
        let call = libc.instructions(&[0x0f, 0x05, 0xc3], Some(found));
        assert!(call.is_some_and(|at| at - found < 32));
    }
}
