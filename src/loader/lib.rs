//! Finds the process's (or a program's) libtorch, finds or builds the adapter for it, and loads that.
//!
//! libtorch has no C entry for "every operation", so a small C++ adapter is compiled against the headers of exactly the
//! libtorch at hand. Its source is embedded ([`sources`]); it comes, in this order, from a directory of adapters built
//! ahead (`$GRAPHPATCH_ADAPTER_DIR`, `graphpatch-adapters/` beside this library), from the cache, or from the machine's
//! C++ compiler ([`build`], [`compiler`]). Data flow: loaded objects or an ELF file → [`Libtorch`] → adapter file → `dlopen`.

pub mod build;
pub mod cache;
pub mod compiler;
mod disable;
mod elf;
mod environment;
pub mod held;
pub mod imports;
mod libtorch;
mod limited;
mod lock;
pub mod message;
mod program;
pub mod seal;
mod shipped;
pub mod sockets;
pub mod sources;
pub mod trust;
mod unfit;
mod versions;

use std::ffi::{CStr, OsStr};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use graphpatch_core::error::{Error, Result};
use trust::{Sound, Unfit};

pub use disable::{DISABLE_VARIABLE, is_disabled};
pub use libtorch::{Libtorch, in_directory, is_libtorch_cpu};
pub use message::say;
pub use program::{Found, find_for_program, find_in_path};
pub use shipped::{Shipped, prefer_adapter};
pub use unfit::{check_library, why_not_preloaded};
pub use versions::{ANYWAY, NEWEST, OLDEST, supported};

/// Whether the adapter for one libtorch is there, and in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterStatus {
    /// The file that would be loaded, or built.
    pub path: PathBuf,
    /// Whether it is there, and where from.
    pub state: AdapterState,
    /// What lies in the folders of adapters that were built ahead.
    pub shipped: Shipped,
}

/// See [`AdapterStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterState {
    /// Built ahead, found beside the library or in `$GRAPHPATCH_ADAPTER_DIR`.
    Prebuilt,
    /// In the cache, built from the present source for this libtorch.
    Cached,
    /// In the cache, but damaged or not to be trusted, for this reason. It will be built anew.
    Broken(String),
    /// Will be built on first use.
    Missing,
}

/// The libtorch mapped into this process, if there is one.
pub fn find_loaded() -> Option<Libtorch> {
    loaded_path().map(|path| Libtorch::describe(&path))
}

/// The path of the `libtorch_cpu.so` mapped into this process. Reads no file.
pub fn loaded_path() -> Option<PathBuf> {
    graphpatch_objects::find(|object| match object.file() {
        Some(file) if is_libtorch_cpu(file) => ControlFlow::Break(file.to_path_buf()),
        _ => ControlFlow::Continue(()),
    })
}

/// Loads the adapter for `libtorch`: one that was built ahead, the one in the cache, or one that is built now. It stays loaded.
///
/// # Errors
///
/// [`Error::State`] where the environment switches us off, [`Error::Torch`] for a libtorch that is not supported,
/// [`Error::Adapter`] and [`Error::File`] if there is no adapter and none can be built. Their text also says why adapters
/// that were built ahead could not be used.
pub fn load(libtorch: &Libtorch) -> Result<&'static Library> {
    if is_disabled() {
        return Err(Error::State(format!(
            "{DISABLE_VARIABLE} is set: nothing of libgraphpatch runs in this process"
        )));
    }
    libtorch.check_version()?;
    let mut shipped = Shipped::find(libtorch, own_object().as_deref());
    for path in std::mem::take(&mut shipped.fits) {
        match build::sound(&path).map(|sound| open(&sound, &path)) {
            Ok(Ok(library)) => return Ok(library),
            Ok(Err(why)) => shipped.near.push(why.to_string()),
            Err(why) => shipped
                .near
                .push(format!("{} {}", path.display(), why.why())),
        }
    }
    // Said only when the adapter is about to be built, not by every process that finds it in the cache.
    if !build::is_cached(libtorch) {
        shipped.near.iter().for_each(|why| message::say(why));
    }
    load_own(libtorch).map_err(|why| match shipped.complaint() {
        none if none.is_empty() => why,
        complaint => Error::Adapter(format!("{why}; {complaint}")),
    })
}

fn load_own(libtorch: &Libtorch) -> Result<&'static Library> {
    let path = PathBuf::from(cache::file_name(libtorch));
    match open(&build::cached_or_built(libtorch, false)?, &path) {
        Ok(library) => Ok(library),
        // An undamaged file that does not load was built with a compiler whose runtime library is gone. It is built
        // once more.
        Err(_) => open(&build::cached_or_built(libtorch, true)?, &path),
    }
}

/// Where the adapter for `libtorch` is, or would be, for the library at `library`. Builds and loads nothing.
///
/// # Errors
///
/// [`Error::Adapter`] if there is no directory in which an adapter could be kept.
pub fn adapter_status(libtorch: &Libtorch, library: Option<&Path>) -> Result<AdapterStatus> {
    let shipped = Shipped::find(libtorch, library);
    let (path, state) = match shipped.fits.first() {
        Some(path) => (path.clone(), AdapterState::Prebuilt),
        None => {
            let path = cache::directory()?.join(cache::file_name(libtorch));
            let state = match build::sound(&path) {
                Ok(_) => AdapterState::Cached,
                Err(Unfit::Absent) => AdapterState::Missing,
                Err(why) => AdapterState::Broken(why.why()),
            };
            (path, state)
        }
    };
    Ok(AdapterStatus {
        path,
        state,
        shipped,
    })
}

/// The shared object (or executable) that holds this code.
pub fn own_object() -> Option<PathBuf> {
    // SAFETY: an all-zero Dl_info is a valid value of that plain C struct.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let here = own_object as fn() -> Option<PathBuf> as *const libc::c_void;
    // SAFETY: `here` is an address in this object and `info` is writable.
    if unsafe { libc::dladdr(here, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so dli_fname is a NUL-terminated string of the dynamic linker.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Loads the file that was checked. Messages name it by `path`.
fn open(sound: &Sound, path: &Path) -> Result<&'static Library> {
    // SAFETY: the file is an adapter: built by us from our own source, or put where the user keeps adapters, where nobody
    // else can write. Its initialisers only register with the libtorch that this process has already loaded.
    match unsafe { Library::open(Some(sound.loadable()), RTLD_NOW | RTLD_LOCAL) } {
        Ok(library) => Ok(Box::leak(Box::new(library))),
        Err(why) => Err(Error::Adapter(format!(
            "the adapter {} does not load: {why}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_object_is_this_test_binary() {
        let own = own_object().expect("dladdr knows us");
        assert_eq!(
            own.canonicalize().ok(),
            std::env::current_exe()
                .ok()
                .and_then(|exe| exe.canonicalize().ok())
        );
        assert_eq!(find_loaded(), None);
    }
}
