//! Changes in the memory of a program with modules, before it begins to run them.
//!
//! * The forward functions of its own modules are reached by no dynamic symbol: their first instructions are replaced by a jump to one
//!   of our places. A program without symbols (stripped) shows none of them.
//! * A plugin that was opened with `RTLD_DEEPBIND` calls libtorch past the hooks that stand before libtorch's functions. The
//!   addresses of the hooks are written into its slots.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::places;
use graphpatch_detours::{members, redirect, set_slot, slots};
use graphpatch_objects as objects;
use graphpatch_torch::Signature;

/// An object of the program's: the file that it can be read from, and what was added to the addresses in it.
type Loaded = (PathBuf, u64);

/// Has calls of the own forward functions of these objects come to places, as long as there are places. Only to be called while the
/// process has one thread. Returns a text for each function that was left alone, with the reason.
pub(super) fn redirect_all(objects: &[Loaded]) -> Vec<String> {
    let mut left = Vec::new();
    let mut place = 0;
    let demangle = super::members::of_libtorch(c"__cxa_demangle");
    // SAFETY: the C++ library's function has that signature.
    let demangle = unsafe { std::mem::transmute::<*mut c_void, Option<Demangle>>(demangle) };
    let Some(demangle) = demangle else {
        return left;
    };
    for (file, bias) in objects {
        for function in members(file, "forward") {
            let Some(text) = demangled(demangle, &function.symbol) else {
                continue;
            };
            let Some(signature) = Signature::read(&text) else {
                continue;
            };
            if signature
                .words
                .is_none_or(|words| words > places::MOST_WORDS)
            {
                left.push(format!("{text}: it takes what cannot be passed on"));
                continue;
            }
            if place == places::PLACES {
                left.push(format!("{text}: there are too many such functions"));
                continue;
            }
            let address = bias.wrapping_add(function.address) as usize;
            // SAFETY: a function of an object that is loaded there; this is the only thread; a place passes on what the function
            // takes.
            match unsafe { redirect(address, function.size as usize, places::address(place)) } {
                Ok(original) => {
                    places::set_original(place, original);
                    place += 1;
                }
                Err(why) => left.push(format!("{text}: {why}")),
            }
        }
    }
    left
}

/// The loaded objects of these files. The program's file is named so that it can be read also when another one has taken its place.
pub(super) fn loaded(files: &[PathBuf]) -> Vec<Loaded> {
    let program = std::env::current_exe().unwrap_or_default();
    let mut found = Vec::new();
    objects::find(|object| {
        if let Some(file) = object.file() {
            let (known_as, read_as) = match file.as_os_str().is_empty() {
                true => (program.as_path(), Path::new("/proc/self/exe")),
                false => (file, file),
            };
            if files.iter().any(|one| one == known_as) {
                found.push((read_as.to_owned(), object.bias()));
            }
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

/// Has these objects call our hooks of libtorch's functions, wherever the dynamic linker has led their calls.
pub(super) fn lead_to_hooks(objects: &[Loaded]) {
    let Some(ours) = range_of_hooks() else { return };
    for (file, bias) in objects {
        let is_torchs =
            |name: &str| name.starts_with("_ZN5torch") || name.starts_with("_ZNK5torch");
        for slot in slots(file, is_torchs) {
            let Ok(name) = CString::new(slot.symbol.as_str()) else {
                continue;
            };
            // SAFETY: a look-up of a valid name. This library stands before libtorch in the process's global scope.
            let hook = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr();
            if ours.contains(&(hook as u64)) {
                let address = bias.wrapping_add(slot.address) as usize;
                // SAFETY: a slot of a loaded object; the hook takes what libtorch's function takes.
                unsafe { set_slot(address, slot.is_sealed, hook) };
            }
        }
    }
}

/// Where the code of this library lies.
fn range_of_hooks() -> Option<std::ops::Range<u64>> {
    let here = (range_of_hooks as fn() -> Option<std::ops::Range<u64>>) as usize as u64;
    objects::find(|object| {
        let own = object
            .ranges()
            .find(|(begin, end)| (*begin..*end).contains(&here));
        match own {
            Some((begin, end)) => ControlFlow::Break(begin..end),
            None => ControlFlow::Continue(()),
        }
    })
}

type Demangle =
    unsafe extern "C" fn(*const c_char, *mut c_char, *mut usize, *mut c_int) -> *mut c_char;

/// The name in C++, by the C++ library that libtorch has brought. `None` for a name that is none of C++'s.
fn demangled(demangle: Demangle, symbol: &str) -> Option<String> {
    let symbol = CString::new(symbol).ok()?;
    let mut status = 0;
    // SAFETY: a C string; the function allocates the text, which is freed below.
    let text = unsafe {
        demangle(
            symbol.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut status,
        )
    };
    if text.is_null() {
        return None;
    }
    // SAFETY: as above.
    let owned = unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: allocated by malloc.
    unsafe { libc::free(text.cast()) };
    Some(owned)
}
