//! The few facts of an ELF file that the loader needs, read on demand: libtorch's libraries are hundreds of megabytes.

use std::fs::File;
use std::hash::Hasher;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use fnv::FnvHasher;

use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader64, NT_GNU_BUILD_ID, PT_LOAD,
};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, Object, ObjectSymbol};

/// What the dynamic linker reads of a library or program.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dynamic {
    pub needed: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
}

/// The dynamic section of a 64-bit ELF file. None for anything else (a script, a static program has an empty one).
pub fn dynamic(path: &Path) -> Option<Dynamic> {
    let cache = ReadCache::new(File::open(path).ok()?);
    read_dynamic(&cache)
}

fn read_dynamic<'data, R: ReadRef<'data>>(data: R) -> Option<Dynamic> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let Some(entries) = segments
        .iter()
        .find_map(|segment| segment.dynamic(endian, data).ok().flatten())
    else {
        return Some(Dynamic::default());
    };
    let value = |tag| {
        entries
            .iter()
            .find(|entry| entry.d_tag(endian) == tag)
            .map(|entry| entry.d_val(endian))
    };
    let (address, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let table = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .find_map(|segment| {
            let into = address.checked_sub(segment.p_vaddr(endian))?;
            let inside = into < segment.p_filesz(endian);
            segment
                .p_offset(endian)
                .checked_add(into)
                .filter(|_| inside)
        })?;
    let text = |offset: u64| {
        let start = table.checked_add(offset)?;
        let bytes = data
            .read_bytes_at_until(start..table.checked_add(size)?, 0)
            .ok()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut dynamic = Dynamic::default();
    for entry in entries {
        match entry.d_tag(endian) {
            DT_NEEDED => dynamic.needed.extend(text(entry.d_val(endian))),
            DT_RPATH => dynamic.rpath.extend(
                text(entry.d_val(endian))
                    .iter()
                    .flat_map(|text| directories(text)),
            ),
            DT_RUNPATH => dynamic.runpath.extend(
                text(entry.d_val(endian))
                    .iter()
                    .flat_map(|text| directories(text)),
            ),
            _ => {}
        }
    }
    Some(dynamic)
}

/// The directories of a colon-separated list.
pub fn directories(list: &str) -> impl Iterator<Item = String> {
    list.split(':')
        .filter(|dir| !dir.is_empty())
        .map(str::to_string)
}

/// The GNU build id in hex. PyTorch's wheels carry none: then the file's size and a hash over its first and last
/// 256 KiB (ELF headers, symbol hashes, section table), which is the same on every machine with that wheel.
pub fn build_id(path: &Path) -> String {
    note(path)
        .or_else(|| ends(path).ok())
        .unwrap_or_else(|| "unreadable".into())
}

fn note(path: &Path) -> Option<String> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let data = &cache;
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, data).ok()? {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(
                    note.desc()
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                );
            }
        }
    }
    None
}

fn ends(path: &Path) -> std::io::Result<String> {
    const END: u64 = 256 * 1024;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hash = FnvHasher::default();
    let mut bytes = Vec::new();
    file.by_ref().take(END).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(size.saturating_sub(END)))?;
    file.take(END).read_to_end(&mut bytes)?;
    hash.write(&bytes);
    Ok(format!("{size:x}h{:016x}", hash.finish()))
}

/// Whether `std::string` in this library's interface is the C++11 one; None when its symbols do not tell.
pub fn uses_cxx11_strings(c10_so: &Path) -> Option<bool> {
    let bytes = std::fs::read(c10_so).ok()?;
    let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).ok()?;
    // Not overloaded on anything else: c10::detail::torchCheckFail(char const*, char const*, unsigned, std::string const&).
    let mut seen = None;
    for symbol in file.dynamic_symbols() {
        let Ok(name) = symbol.name() else { continue };
        if symbol.is_undefined() || !name.starts_with("_ZN3c106detail14torchCheckFail") {
            continue;
        }
        match name {
            _ if name.contains("__cxx11") => return Some(true),
            _ if name.contains("Ss") => seen = Some(false),
            _ => {}
        }
    }
    seen
}

/// Whether the object takes a symbol from another one whose name is `wanted`.
pub fn imports(path: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let cache = ReadCache::new(file);
    let Ok(file) = ElfFile64::<Endianness, _>::parse(&cache) else {
        return false;
    };
    file.dynamic_symbols()
        .filter(|symbol| symbol.is_undefined())
        .any(|symbol| symbol.name().is_ok_and(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_test_binary() {
        let own = std::env::current_exe().expect("exe");
        let dynamic = dynamic(&own).expect("elf");
        assert!(
            dynamic
                .needed
                .iter()
                .any(|name| name.starts_with("libc.so")),
            "{dynamic:?}"
        );
        assert!(imports(&own, |name| name == "dlsym"));
        assert!(!imports(&own, |name| name == "no_such_symbol"));
        assert_ne!(build_id(&own), "unreadable");
        assert_eq!(ends(&own).ok(), ends(&own).ok());
    }

    #[test]
    fn no_elf() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("script");
        std::fs::write(&file, "#!/bin/sh\n").expect("write");
        assert_eq!(dynamic(&file), None);
        assert_eq!(dynamic(&dir.path().join("absent")), None);
        assert!(!imports(&file, |_| true) && !imports(&dir.path().join("absent"), |_| true));
        assert_eq!(uses_cxx11_strings(&file), None);
        assert!(build_id(&file).starts_with("ah"));
    }
}
