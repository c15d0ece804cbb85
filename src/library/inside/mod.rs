//! The life of a preloaded process: `graphpatch run` starts the program with this library in `LD_PRELOAD`, names an
//! options file in `GRAPHPATCH_OPTIONS`, and reads the report files when the program has ended. What is in these files is the
//! crate `graphpatch_protocol`'s.
//!
//! | file | owns |
//! |---|---|
//! | `values` | what probes and records kept, beside the report |
//! | `times` | when scopes and operations began and ended, for `--trace`, beside the report |
//! | `process` | the one state of the process |
//! | `attach` | reading the options, and attaching when libtorch is there |
//! | `written` | when the last report was written, and how long that took |
//! | `seal` | whether a filter of system calls (seccomp) forbids reports, and the page that tells the command so |
//! | `reports` | when reports are written, and what is in them |
//! | `forked` | what a forked child begins with |
//! | `forks` | a process that waits at its first run, and is forked there for each run of a sweep |
//! | `table` | the list of all hooks |
//! | `real` | the C library's functions behind them |
//! | `hooks` | the C symbols that stand before libc's: start, late loading, the ways to end |
//! | `threads` | `pthread_create`, for programs whose operations are listed flat |
//! | `exec` | a report before the process becomes another program |
//! | `forwards` | forward functions of libtorch's modules that stand before its own, for calls of modules in such programs |
//! | `own_forwards`, `places` | the same for forward functions of the program's own modules |
//! | `members` | members of libtorch's that stand before its own, for programs whose operations are listed flat |
//! | `lost` | programs that are started without the library, and a libtorch that no hook saw loading |
//! | `python` | whether the process is a Python program that has loaded torch |
//! | `undisturbed` | no `pthread_cancel` and no SIGXFSZ for a thread that writes a report |
//! | `sudden_end` | a report before a sudden end, which may hang or crash without harm |
//!
//! The order of events: `hooks` catches `__libc_start_main` and reads the options right before `main` (a constructor
//! would be too early). If libtorch is mapped the session attaches at once; else every `dlopen` and `dlsym` looks
//! whether it was loaded. From then on reports are written after runs (soon if the graph has grown, less often for counts
//! alone) and at the end. A forked child goes on with counters from zero and a report of its own. A program that replaces
//! the process by `exec` begins again with the options, since it inherits both variables.
//!
//! Runs of modules need no hook of threads: a thread is armed when it calls a root, whether it was started before or
//! after the session attached. Only where operations outside of such runs are wanted (`Operations`, decided when the
//! session attaches) does `pthread_create` tell the crate `graphpatch_torch` of each thread that the program starts.
//!
//! In a process that is not preloaded (a program that links or opens this library), each hook costs one atomic load.
//! Nothing here writes to the program's stdout, and no failure here ends the program.

mod attach;
mod exec;
mod forked;
mod forks;
#[cfg(target_arch = "x86_64")]
mod forwards;
mod hooks;
mod lost;
mod members;
#[cfg(target_arch = "x86_64")]
mod own_forwards;
#[cfg(target_arch = "x86_64")]
mod places;
mod process;
mod python;
mod real;
mod reports;
mod seal;
mod sudden_end;
mod table;
mod threads;
mod times;
mod undisturbed;
mod values;
mod written;

pub use forked::{begin_anew, give_up};
pub use process::session;
