//! Reading an object's file: only the parts that are asked for.

use std::fs::File;
use std::path::Path;

use object::Endianness;
use object::read::ReadCache;
use object::read::elf::ElfFile64;

/// Calls `body` with the object. `None` if it cannot be read.
pub(crate) fn read<T>(
    object: &Path,
    body: impl FnOnce(&ElfFile64<'_, Endianness, &ReadCache<File>>) -> T,
) -> Option<T> {
    let cache = ReadCache::new(File::open(object).ok()?);
    let file = ElfFile64::parse(&cache).ok()?;
    Some(body(&file))
}
