//! The objects (the program and its libraries) that the dynamic linker has loaded into this process.
//!
//! [`find`] shows them one after the other, as long as its caller wants to see more. It makes no system call and loads nothing, so
//! it also works in a program whose sandbox forbids to open files. What is shown belongs to the dynamic linker, and lasts only
//! until the visitor returns.

use std::ffi::{CStr, OsStr};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use graphpatch_locks::gate::Inside;

/// A loaded object.
pub struct Object<'a> {
    info: &'a libc::dl_phdr_info,
    /// How many bytes of `info` there are: older systems know fewer fields.
    size: usize,
}

impl<'a> Object<'a> {
    /// The file that it was loaded from. It is empty for the program itself, and `None` where the dynamic linker knows none.
    pub fn file(&self) -> Option<&'a Path> {
        if self.info.dlpi_name.is_null() {
            return None;
        }
        // SAFETY: a C string of the dynamic linker's, which lives as long as the visitor's call.
        let name = unsafe { CStr::from_ptr(self.info.dlpi_name) };
        Some(Path::new(OsStr::from_bytes(name.to_bytes())))
    }

    /// What was added to the addresses in its file.
    pub fn bias(&self) -> u64 {
        self.info.dlpi_addr
    }

    /// The beginnings and ends of what is mapped of it.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let headers: &[libc::Elf64_Phdr] = match self.info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the object's program headers, which are mapped with it.
            false => unsafe {
                std::slice::from_raw_parts(self.info.dlpi_phdr, self.info.dlpi_phnum.into())
            },
        };
        let bias = self.bias();
        let loaded = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD);
        loaded.map(move |header| {
            let begin = bias.wrapping_add(header.p_vaddr);
            (begin, begin.wrapping_add(header.p_memsz))
        })
    }

    /// How many objects were ever loaded into this process. 0 where the C library does not count them.
    pub fn ever_added(&self) -> u64 {
        let end = std::mem::offset_of!(libc::dl_phdr_info, dlpi_adds) + size_of::<u64>();
        match self.size >= end {
            true => self.info.dlpi_adds,
            false => 0,
        }
    }
}

/// Shows `visit` the loaded objects, the program first, until it breaks off. Returns what it broke off with.
///
/// A lock of the dynamic linker's is held meanwhile, so the visitor must not load anything, and must not panic. A fork of the
/// process waits until the lock is free again.
pub fn find<T>(visit: impl FnMut(&Object<'_>) -> ControlFlow<T>) -> Option<T> {
    let _inside = Inside::new();
    let mut search = Search { visit, found: None };
    search.run();
    search.found
}

struct Search<V, T> {
    visit: V,
    found: Option<T>,
}

impl<T, V: FnMut(&Object<'_>) -> ControlFlow<T>> Search<V, T> {
    fn run(&mut self) {
        // SAFETY: `step` is called with the pointer that is given here, and only while this call lasts.
        unsafe { libc::dl_iterate_phdr(Some(Self::step), std::ptr::from_mut(self).cast()) };
    }

    unsafe extern "C" fn step(
        info: *mut libc::dl_phdr_info,
        size: libc::size_t,
        search: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: dl_iterate_phdr hands a valid info of `size` bytes for the time of this call; `search` is the pointer that
        // `run` gives.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Self>()) };
        match (search.visit)(&Object { info, size }) {
            ControlFlow::Continue(()) => 0,
            ControlFlow::Break(found) => {
                search.found = Some(found);
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_first_and_libc_is_there() {
        let mut files = Vec::new();
        let whole = find(|object| {
            files.push(object.file().map(Path::to_owned));
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(whole, None);
        assert_eq!(
            files.first().cloned().flatten().as_deref(),
            Some(Path::new(""))
        );
        let is_libc = |file: &Path| file.file_name().is_some_and(|name| name == "libc.so.6");
        assert!(
            files.iter().flatten().any(|file| is_libc(file)),
            "{files:?}"
        );
        let found = find(|object| match object.file() {
            Some(file) if is_libc(file) => ControlFlow::Break(file.to_owned()),
            _ => ControlFlow::Continue(()),
        });
        assert!(found.is_some_and(|file| is_libc(&file)));
    }

    #[test]
    fn a_function_lies_in_one_range_of_its_object() {
        let address = a_function_lies_in_one_range_of_its_object as fn() as usize as u64;
        let mut holders = 0;
        find(|object| {
            holders += object
                .ranges()
                .filter(|(begin, end)| (*begin..*end).contains(&address))
                .count();
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(holders, 1);
    }

    #[test]
    fn objects_that_come_are_counted() {
        let added = || find(|object| ControlFlow::Break(object.ever_added())).unwrap_or_default();
        let before = added();
        assert!(before > 1, "{before}");
        // SAFETY: a library of the system's, which has no constructor.
        let library = unsafe { libc::dlopen(c"libutil.so.1".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "libutil.so.1 is not there");
        assert!(added() > before);
    }
}
