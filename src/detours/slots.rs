//! The slots through which an object calls functions of other objects, tables of virtual functions among them. The dynamic linker has
//! written the functions' addresses there.

use std::path::Path;

use object::elf::{PT_GNU_RELRO, R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT};
use object::read::Relocation;
use object::read::elf::ProgramHeader;
use object::{Object, ObjectSymbol, ObjectSymbolTable, RelocationFlags, RelocationTarget};

use crate::elf;
use crate::redirect::page;

/// A slot. Its address is the one in the file; what the object was loaded at comes on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The function's symbol.
    pub symbol: String,
    pub address: u64,
    /// Whether the dynamic linker lets nobody write there any more.
    pub is_sealed: bool,
}

/// The object's slots for functions whose symbols are `wanted`. An object that cannot be read has none.
pub fn slots(object: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Slot> {
    elf::read(object, |file| {
        let symbols = file.dynamic_symbol_table()?;
        let endian = file.endian();
        let sealed = file
            .elf_program_headers()
            .iter()
            .find(|header| header.p_type(endian) == PT_GNU_RELRO)
            .map(|header| header.p_vaddr(endian)..header.p_vaddr(endian) + header.p_memsz(endian));
        let slot = |(address, relocation): (u64, Relocation)| {
            let RelocationFlags::Elf { r_type } = relocation.flags() else {
                return None;
            };
            let RelocationTarget::Symbol(index) = relocation.target() else {
                return None;
            };
            let is_slot = match r_type {
                R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => true,
                R_X86_64_64 => relocation.addend() == 0,
                _ => false,
            };
            let symbol = symbols.symbol_by_index(index).ok()?;
            let name = symbol.name().ok()?;
            (is_slot && wanted(name)).then(|| Slot {
                symbol: name.to_owned(),
                address,
                is_sealed: sealed
                    .as_ref()
                    .is_some_and(|range| range.contains(&address)),
            })
        };
        Some(file.dynamic_relocations()?.filter_map(slot).collect())
    })
    .flatten()
    .unwrap_or_default()
}

/// Writes the function's address into a slot. Returns false if the system does not allow it.
///
/// # Safety
///
/// `address` is that of a slot of a loaded object, and `function` takes what the slot's function takes.
pub unsafe fn set_slot(address: usize, is_sealed: bool, function: usize) -> bool {
    let begin = address & !(page() - 1);
    let protect = |access| {
        // SAFETY: a page of the object's data, which stays readable.
        unsafe { libc::mprotect(begin as *mut libc::c_void, page(), access) == 0 }
    };
    if is_sealed && !protect(libc::PROT_READ | libc::PROT_WRITE) {
        return false;
    }
    // SAFETY: a slot, which can be written to now. Threads that read it find one of the two addresses.
    unsafe { std::sync::atomic::AtomicUsize::from_ptr(address as *mut usize) }
        .store(function, std::sync::atomic::Ordering::Release);
    if is_sealed {
        protect(libc::PROT_READ);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_calls_the_c_library() {
        let own = std::env::current_exe().expect("exe");
        let found = slots(&own, |name| name == "mprotect");
        assert!(!found.is_empty());
        assert!(found.iter().all(|slot| slot.symbol == "mprotect"));
        assert_eq!(slots(Path::new("/does/not/exist"), |_| true), []);
    }
}
