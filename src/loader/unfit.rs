//! Programs into which the library cannot be loaded, and why, as their files tell.

use std::path::Path;

use object::elf::{FileHeader32, FileHeader64, PT_INTERP, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use object::{Architecture, Endianness};

/// Why the dynamic linker would not load this library into `program`; `None` if it would, or if that is not known. The text
/// ends a sentence that begins with the program.
pub fn why_not_preloaded(program: &Path) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::File::open(program).ok()?;
    let found = file.metadata().ok()?;
    let rises = found.mode() & 0o4000 != 0 && found.uid() != super::trust::user();
    let cache = ReadCache::new(file);
    if FileHeader32::<Endianness>::parse(&cache).is_ok() {
        return Some("is a program for 32 bits");
    }
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let why = of_header(header, &cache);
    why.or(rises.then_some("runs with more rights than its caller (setuid)"))
}

fn of_header<'data, R: ReadRef<'data>>(
    header: &FileHeader64<Endianness>,
    data: R,
) -> Option<&'static str> {
    let endian = header.endian().ok()?;
    if header.e_machine(endian) != own_machine()? {
        return Some("is a program for another processor");
    }
    let segments = header.program_headers(endian, data).ok()?;
    let interpreter = segments
        .iter()
        .find(|segment| segment.p_type(endian) == PT_INTERP);
    let Some(interpreter) = interpreter else {
        return Some("is statically linked");
    };
    let path = interpreter.data(endian, data).ok()?;
    let is_musl = path.windows(7).any(|part| part == b"ld-musl");
    is_musl.then_some("is linked with musl, not with glibc")
}

/// What is wrong with a library that is to be preloaded. The dynamic linker itself would crash on one that was cut short.
///
/// # Errors
///
/// A text that ends a sentence which begins with the library's path.
pub fn check_library(library: &Path) -> Result<(), &'static str> {
    const DAMAGED: &str = "is no library, or a damaged one";
    let file = std::fs::File::open(library).map_err(|_| "cannot be read")?;
    let size = file.metadata().map_err(|_| "cannot be read")?.len();
    let cache = ReadCache::new(file);
    let whole = || -> Option<bool> {
        let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, &cache).ok()?;
        let ends = |segment: &object::elf::ProgramHeader64<Endianness>| {
            segment
                .p_offset(endian)
                .checked_add(segment.p_filesz(endian))
        };
        let is_there = |end: Option<u64>| end.is_some_and(|end| end <= size);
        let loads = segments
            .iter()
            .any(|segment| segment.p_type(endian) == PT_LOAD);
        let machine = Some(header.e_machine(endian)) == own_machine();
        // The section headers are the last part of a file. If they are missing, the copy was cut short, even if all segments
        // are there.
        let sections = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
        let sections = header.e_shoff(endian).checked_add(sections);
        let ends = segments.iter().map(ends).chain([sections]);
        Some(loads && machine && ends.into_iter().all(is_there))
    };
    match whole() {
        Some(true) => Ok(()),
        _ => Err(DAMAGED),
    }
}

fn own_machine() -> Option<object::elf::Machine> {
    match own_architecture() {
        Architecture::X86_64 => Some(object::elf::EM_X86_64),
        Architecture::Aarch64 => Some(object::elf::EM_AARCH64),
        _ => None,
    }
}

fn own_architecture() -> Architecture {
    match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        _ => Architecture::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_programs_are_no_matter() {
        let own = std::env::current_exe().expect("exe");
        assert_eq!(why_not_preloaded(&own), None);
        assert_eq!(check_library(&own), Ok(()));
        let dir = tempfile::tempdir().expect("dir");
        let cut = dir.path().join("cut");
        let whole = std::fs::read(&own).expect("read");
        for length in [0, 1, 60, 4096, whole.len() / 2] {
            std::fs::write(&cut, &whole[..length]).expect("write");
            assert!(check_library(&cut).is_err(), "{length}");
        }
        assert_eq!(why_not_preloaded(Path::new("/no/such")), None);
        assert_eq!(why_not_preloaded(Path::new("/etc/passwd")), None);
    }
}
