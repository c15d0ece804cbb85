//! Makes another process load the library and call one function of it: the only crate that stops threads of another process and
//! writes into its memory.
//!
//! Data flow: a process id → [`Process`] (what `/proc` says, or why it cannot be used) → a thread that stands at a harmless
//! system call ([`search`]) → calls on that thread (`dlopen`, then the library's own function) → the thread as it was before.
//!
//! | file | owns |
//! |---|---|
//! | `call` | what is to be called, and how the call went |
//! | `process` | what is known of the process before anything is touched, and each reason to refuse it |
//! | `family` | which processes a process has started, and what each is called |
//! | `maps` | which files a process has mapped, and where |
//! | `image` | the symbols and some instructions of a file that is mapped |
//! | `safe_points` | at which system calls a thread may be borrowed |
//! | `tracee` | one thread of the process under ptrace |
//! | `search` | finding a thread that can be borrowed |
//! | `frame` | what the kernel would write on a thread's stack for a signal; it restores the thread even without us |
//! | `borrowed` | calls of functions on the thread, and giving it back |
//!
//! Nothing is written into the process's code. Only one thread is borrowed, for some milliseconds, and the other threads run on.
//! The borrowed thread returns by a signal frame of its own: if this process is killed at any moment, the thread
//! finishes the call that it was in and goes on where it was. Only x86-64 Linux with glibc is known.

mod call;
pub mod family;
mod process;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod borrowed;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod frame;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod image;
#[cfg(target_os = "linux")]
mod maps;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod safe_points;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod search;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracee;

pub use call::{Call, Called};
pub use process::Process;

/// Makes the call. When it fails, the process goes on as it was; the text says why, and ends a sentence that begins with the
/// process.
///
/// # Errors
///
/// Why the process cannot be used, or what the dynamic linker said.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn call(process: &Process, call: &Call<'_>) -> Result<Called, String> {
    borrowed::call(process, call)
}

/// The same on other machines, where nothing can be attached to.
///
/// # Errors
///
/// Always.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn call(_: &Process, _: &Call<'_>) -> Result<Called, String> {
    Err(process::FOREIGN.into())
}
