//! How a preloaded process begins: it reads its options, and the session attaches when libtorch is there.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

#[cfg(target_arch = "x86_64")]
use super::forwards;
use super::process::{self, Process};
use super::written::Reports;
use super::{forks, lost, reports, table};
use crate::fork;
use crate::live;
use graphpatch_core::error::Result;
use graphpatch_loader::{self as loader, imports};
use graphpatch_locks::OnceLock;
use graphpatch_protocol::forks::Meeting;
use graphpatch_protocol::options::{OPTIONS_VARIABLE, Operations, Options};
use graphpatch_session::Session;

/// Reads a preloaded process's options and attaches if libtorch is mapped. Called once, right before `main`.
pub fn open() {
    let Some(file) = std::env::var_os(OPTIONS_VARIABLE) else {
        return;
    };
    if loader::is_disabled() || !is_preloaded() {
        return;
    }
    table::look_up();
    loader::message::begin();
    let options = match Options::load(Path::new(&file)) {
        Ok(options) => options,
        // A background child may outlive `graphpatch run`, which removes this file at its end. Nobody waits for its report.
        Err(_) if !Path::new(&file).exists() => return,
        // Another version may have written the file. The program then runs without us, and its user has to know.
        Err(why) => return loader::say(&format!("this program runs untouched: {why}")),
    };
    let program = std::env::current_exe()
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default();
    let process = Process {
        lost: lost::file(&options.report_dir),
        options,
        program,
        rank: std::env::var("RANK").ok().filter(|rank| !rank.is_empty()),
        session: OnceLock::new(),
        libtorch: OnceLock::new(),
        error: OnceLock::new(),
        pid: AtomicU32::new(std::process::id()),
        forked: AtomicBool::new(false),
        reports: Reports::begin(),
    };
    if !process::begin(process) {
        return;
    }
    // SAFETY: a function of this library, which a preloaded process never unloads.
    unsafe { libc::atexit(lost::look_at_end) };
    attach_if_loaded();
}

/// Whether `LD_PRELOAD` names the object that holds this code.
fn is_preloaded() -> bool {
    let Some(own) = loader::own_object() else {
        return false;
    };
    let list = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    // A constructor of another preloaded library may have removed the variable from the environment, as heaptrack's does.
    is_listed(&list, &own) || is_listed(&list_at_start(), &own)
}

/// The list with which the process was started.
fn list_at_start() -> OsString {
    let environment = std::fs::read("/proc/self/environ").unwrap_or_default();
    let list = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"LD_PRELOAD="));
    OsStr::from_bytes(list.unwrap_or_default()).to_os_string()
}

fn is_listed(list: &OsStr, own: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    list.as_bytes()
        .split(|byte| matches!(byte, b' ' | b':'))
        .filter(|entry| !entry.is_empty())
        .map(|entry| PathBuf::from(OsStr::from_bytes(entry)))
        .any(|entry| entry == own || is_expanded(&entry, own) || real(&entry) == real(own))
}

/// Whether `own` is the entry with glibc's name of its library folder in place of `$LIB`.
fn is_expanded(entry: &Path, own: &Path) -> bool {
    let (entry, own) = (entry.as_os_str().as_bytes(), own.as_os_str().as_bytes());
    let Some(at) = entry.windows(4).position(|part| part == b"$LIB") else {
        return false;
    };
    own.starts_with(&entry[..at]) && own.ends_with(&entry[at + 4..])
}

/// Attaches if libtorch is mapped now and no other thread is attaching. True when no later call has to look again.
pub fn attach_if_loaded() -> bool {
    let Some(process) = process::get() else {
        return true;
    };
    if loader::loaded_path().is_none() {
        return false;
    }
    if !process::begin_attaching() {
        return true;
    }
    if let Some(libtorch) = loader::find_loaded() {
        let _ = process.libtorch.set(format!(
            "{} ({})",
            libtorch.version,
            libtorch.lib_dir.display()
        ));
    }
    let failure = match catch_unwind(AssertUnwindSafe(|| process.attach())) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why.to_string()),
        Err(_) => Some("internal error: a panic while attaching".to_string()),
    };
    if let Some(why) = failure {
        let _ = process.error.set(why);
    }
    reports::at_end();
    fork::install();
    process::attached();
    process.listen();
    process.write_first();
    true
}

impl Process {
    fn attach(&'static self) -> Result<()> {
        let session = Session::open_for_command();
        self.configure(&session)?;
        if let Some(folder) = self.options.fork.clone() {
            session.set_before_first_run(Box::new(move || forks::wait(self, Meeting(folder))));
        }
        graphpatch_torch::attach(&session)?;
        if self.is_flat() {
            graphpatch_torch::flat_start(&self.options.run_at)?;
            #[cfg(target_arch = "x86_64")]
            if self.options.run_at.is_empty() {
                forwards::begin(&session);
            }
            if process::threads() > 1 {
                session.note(
                    "threads that ran before libtorch was loaded: their operations are not listed",
                );
            }
        }
        Ok(())
    }

    /// Makes this session the process's, with the settings and patches of the options.
    pub(super) fn configure(&'static self, session: &Arc<Session>) -> Result<()> {
        let _ = self.session.set(session.clone());
        session.set_observer(Arc::new(|news| self.on_news(news)));
        session.set_on_error(self.options.on_error);
        session.set_recording(self.options.record);
        session.set_timing(self.options.trace);
        session.set_inside(self.options.inside_attention);
        // A run that is recorded has compiled code run operation by operation.
        let named = !self.options.patches.is_empty() && !self.options.compiled_values;
        session.set_surveying(named || self.options.live);
        for patch in &self.options.patches {
            session.add_patch(patch.clone())?;
        }
        Ok(())
    }

    /// Opens the socket for live control if `graphpatch run --live` asked for it. A failure becomes a note in the report.
    fn listen(&self) {
        if self.options.live
            && self.error.get().is_none()
            && let Some(session) = self.session.get()
            && let Err(why) = live::start(session)
        {
            session.note(&format!("this process does not listen: {why}"));
        }
    }

    /// Whether operations outside of runs are listed. This is decided once, by what the process has loaded at that moment.
    /// With live control, a patch may come later; it needs runs that begin anew (`run_at`), since a run keeps its plan.
    fn is_flat(&self) -> bool {
        let later = self.options.live && !self.options.run_at.is_empty();
        let wanted = later || self.options.record || !self.options.patches.is_empty();
        wanted
            && match self.options.operations {
                Operations::Never => false,
                Operations::Always => !imports::has_python(),
                Operations::Auto => !imports::has_python() && !imports::tells_of_runs(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preload_lists() {
        let own = Path::new("/opt/gp/libgraphpatch.so");
        assert!(is_listed(OsStr::new("/opt/gp/libgraphpatch.so"), own));
        assert!(is_listed(
            OsStr::new("/lib/x.so:/opt/gp/libgraphpatch.so"),
            own
        ));
        assert!(is_listed(
            OsStr::new("/lib/x.so /opt/gp/libgraphpatch.so"),
            own
        ));
        assert!(!is_listed(OsStr::new("/lib/x.so"), own));
        let linked = Path::new("/c/lib64/graphpatch/libgraphpatch.so");
        assert!(is_listed(
            OsStr::new("/c/$LIB/graphpatch/libgraphpatch.so"),
            linked
        ));
        assert!(!is_listed(
            OsStr::new("/d/$LIB/graphpatch/libgraphpatch.so"),
            linked
        ));
        assert!(!is_listed(OsStr::new(""), own));
    }

    #[test]
    fn a_test_is_not_preloaded() {
        open();
        assert!(!process::is_waiting() && !process::is_attached_here());
        reports::report_now();
    }
}
