//! The one state of a preloaded process: whether it is one, whether the session is attached, when a report is due.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cancel::Uncancelled;
use super::python;
use super::values::Values;
use graphpatch_core::error::Result;
use graphpatch_loader::{self as loader, imports};
use graphpatch_protocol::options::{OPTIONS_VARIABLE, Operations, Options};
use graphpatch_protocol::report::{PatchReport, Report, values_name};
use graphpatch_session::{Held, Keyed, News, OWN_RUNS, Session, keyed};

/// Not a preloaded process, or one whose options are gone: hooks pass through.
const CLOSED: u8 = 0;
/// Preloaded; libtorch has not been seen.
const WAITING: u8 = 1;
/// One thread attaches; hooks pass through.
const ATTACHING: u8 = 2;
/// Attached, or failed to: nothing left to look for; reports are written.
const ATTACHED: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(CLOSED);
static DOOR: OnceLock<Door> = OnceLock::new();

struct Door {
    options: Options,
    program: String,
    rank: Option<String>,
    session: OnceLock<Arc<Session>>,
    libtorch: OnceLock<String>,
    error: OnceLock<String>,
    opened: Instant,
    /// The same moment, in nanoseconds since 1970.
    started: u128,
    /// The process that this memory belongs to: a `vfork` child shares it but is another process.
    pid: AtomicU32,
    /// Whether this process was forked from an attached one.
    forked: AtomicBool,
    /// A report is being written.
    writing: AtomicBool,
    /// The graph has grown since the last report.
    grown: AtomicBool,
    values: Values,
    /// When the last report was done and how long it took, in microseconds since `opened`; 0: none yet.
    written: AtomicU64,
    took: AtomicU64,
}

/// Whether hooks still have to look for libtorch. The first line of each.
#[inline]
pub fn is_waiting() -> bool {
    STATE.load(Ordering::Acquire) == WAITING
}

/// Whether there is something to report, and this is the process that it is about.
#[inline]
pub fn is_attached_here() -> bool {
    STATE.load(Ordering::Acquire) == ATTACHED
        && DOOR
            .get()
            .is_some_and(|door| door.pid.load(Ordering::Relaxed) == std::process::id())
}

/// Opens the door of a preloaded process and attaches if libtorch is mapped. Called once, right before `main`.
pub fn open() {
    let Some(file) = std::env::var_os(OPTIONS_VARIABLE) else {
        return;
    };
    if !is_preloaded() {
        return;
    }
    // A background child may outlive `graphpatch run`, and with it this file: then nobody waits for a report.
    let Ok(options) = Options::load(Path::new(&file)) else {
        return;
    };
    let program = std::env::current_exe()
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default();
    let door = Door {
        options,
        program,
        rank: std::env::var("RANK").ok().filter(|rank| !rank.is_empty()),
        session: OnceLock::new(),
        libtorch: OnceLock::new(),
        error: OnceLock::new(),
        opened: Instant::now(),
        started: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos()),
        pid: AtomicU32::new(std::process::id()),
        forked: AtomicBool::new(false),
        writing: AtomicBool::new(false),
        grown: AtomicBool::new(false),
        values: Values::default(),
        written: AtomicU64::new(0),
        took: AtomicU64::new(0),
    };
    if DOOR.set(door).is_err() {
        return;
    }
    STATE.store(WAITING, Ordering::Release);
    attach_if_loaded();
}

/// Whether `LD_PRELOAD` names the object that holds this code.
fn is_preloaded() -> bool {
    let Some(own) = loader::own_object() else {
        return false;
    };
    let list = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    is_listed(&list, &own)
}

fn is_listed(list: &OsStr, own: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    list.as_bytes()
        .split(|byte| matches!(byte, b' ' | b':'))
        .filter(|entry| !entry.is_empty())
        .map(|entry| PathBuf::from(OsStr::from_bytes(entry)))
        .any(|entry| entry == own || real(&entry) == real(own))
}

/// Attaches if libtorch is mapped now and nobody else is at it. True when there is nothing left to wait for.
pub fn attach_if_loaded() -> bool {
    let Some(door) = DOOR.get() else { return true };
    if loader::loaded_path().is_none() {
        return false;
    }
    if STATE
        .compare_exchange(WAITING, ATTACHING, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return true;
    }
    if let Some(libtorch) = loader::find_loaded() {
        let _ = door.libtorch.set(format!(
            "{} ({})",
            libtorch.version,
            libtorch.lib_dir.display()
        ));
    }
    let failure = match catch_unwind(AssertUnwindSafe(|| door.attach())) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why.to_string()),
        Err(_) => Some("internal error: a panic while attaching".to_string()),
    };
    if let Some(why) = failure {
        let _ = door.error.set(why);
    }
    // SAFETY: the handlers are functions of this library, which a preloaded process never unloads.
    unsafe {
        libc::atexit(at_exit);
        at_quick_exit(at_exit);
        libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child));
    }
    STATE.store(ATTACHED, Ordering::Release);
    // For a process that is killed before its first run ends; that run's report is the first that counts.
    door.write(Wait::No);
    door.written.store(0, Ordering::Relaxed);
    true
}

unsafe extern "C" {
    fn at_quick_exit(handler: extern "C" fn()) -> libc::c_int;
}

extern "C" fn at_exit() {
    report_now();
}

/// Writes the last report. For the end of the process.
pub fn report_now() {
    if is_attached_here()
        && let Some(door) = DOOR.get()
    {
        door.write(Wait::Yes);
    }
}

/// Writes the last report of a program that is about to become another one, which may fail. A forked child that has run
/// nothing has nothing to tell, and little that it may do.
pub fn report_before_exec() {
    let session = DOOR.get().and_then(|door| door.session.get());
    if is_attached_here() && session.is_some_and(|session| session.runs() > 0) {
        report_now();
    }
}

thread_local! {
    static HELD: Cell<Option<Held>> = const { Cell::new(None) };
}

unsafe extern "C" fn before_fork() {
    if let Some(session) = DOOR.get().and_then(|door| door.session.get()) {
        HELD.set(Some(session.hold()));
    }
}

unsafe extern "C" fn in_parent() {
    HELD.take();
}

/// In a forked child: the same options and patches, everything counted from zero, a report of its own.
unsafe extern "C" fn in_child() {
    HELD.take();
    let Some(door) = DOOR.get() else { return };
    door.pid.store(std::process::id(), Ordering::Relaxed);
    door.forked.store(true, Ordering::Relaxed);
    // The thread that wrote or attached, if it was another one, does not exist here.
    door.writing.store(false, Ordering::Release);
    door.written.store(0, Ordering::Relaxed);
    door.grown.store(false, Ordering::Relaxed);
    door.values.forget();
    if let Some(session) = door.session.get() {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            session.reset_after_fork();
            graphpatch_torch::flat_forked();
        }));
    }
}

/// Whether to wait for another thread's report to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// It is not the last one of the process.
    Soon,
    Yes,
}

impl Door {
    fn attach(&'static self) -> Result<()> {
        let session = Session::open_for_command();
        session.set_on_error(self.options.on_error);
        for patch in &self.options.patches {
            session.add_patch(patch.clone())?;
        }
        session.set_recording(self.options.record);
        session.set_surveying(!self.options.patches.is_empty());
        session.set_observer(Box::new(|news| self.on_news(news)));
        let _ = self.session.set(session.clone());
        graphpatch_torch::attach(&session)?;
        if self.is_flat() {
            graphpatch_torch::flat_start(&self.options.run_at)?;
            if threads() > 1 {
                session.note(
                    "threads that ran before libtorch was loaded: their operations are not listed",
                );
            }
        }
        Ok(())
    }

    /// Whether operations outside of runs are listed. Decided once, by what the process has loaded then.
    fn is_flat(&self) -> bool {
        let wanted = self.options.record || !self.options.patches.is_empty();
        wanted
            && match self.options.operations {
                Operations::Never => false,
                Operations::Always => !imports::has_python(),
                Operations::Auto => !imports::has_python() && !imports::tells_of_runs(),
            }
    }

    /// After every run, on its thread. A report may cost as much as a run: the first is written at once, later ones soon
    /// after the graph has grown, and now and then for the counts, so that a process that is killed has left nearly all.
    fn on_news(&self, news: News) {
        if news != News::Counts {
            self.grown.store(true, Ordering::Relaxed);
        }
        if news == News::Last {
            return self.write(Wait::Soon);
        }
        let (written, took) = (
            self.written.load(Ordering::Relaxed),
            self.took.load(Ordering::Relaxed),
        );
        if is_due(
            self.now(),
            written,
            took,
            self.grown.load(Ordering::Relaxed),
        ) {
            self.write(Wait::No);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn write(&self, wait: Wait) {
        let pid = std::process::id();
        if pid != self.pid.load(Ordering::Relaxed) {
            return;
        }
        let _whole = Uncancelled::new();
        let mut tries = 0;
        while self
            .writing
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            tries += 1;
            if wait == Wait::No || tries > 1000 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = self.now();
        self.grown.store(false, Ordering::Relaxed);
        // A full disk or a directory that is gone costs the report, nothing else.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let (mut report, kept) = self.report(pid);
            report.unseen_python = wait == Wait::Yes && self.is_unseen_python();
            if report.runs > 0 || report.error.is_some() || !self.forked.load(Ordering::Relaxed) {
                let _ = report.save(&self.options.report_dir, &self.file_name(pid));
                self.took.store(self.now() - before, Ordering::Relaxed);
                self.write_values(report, &kept, wait == Wait::Yes);
            }
        }));
        self.written.store(self.now(), Ordering::Relaxed);
        self.writing.store(false, Ordering::Release);
    }

    /// After the report, since they may be large. The report says it when they cannot be written.
    fn write_values(&self, mut report: Report, kept: &Keyed, last: bool) {
        let (dir, name) = (&self.options.report_dir, self.file_name(report.pid));
        if let Err(why) = self.values.write(kept, &dir.join(values_name(&name)), last) {
            report
                .unsaved
                .push(format!("the values of process {}: {why}", report.pid));
            let _ = report.save(dir, &name);
        }
    }

    fn is_unseen_python(&self) -> bool {
        let told = self
            .session
            .get()
            .is_some_and(|session| session.has_source());
        !told && self.error.get().is_none() && python::has_torch()
    }

    /// `exec` keeps the process id: the time tells the images apart.
    fn file_name(&self, pid: u32) -> String {
        format!("report-{pid}-{}.json", self.started)
    }

    fn report(&self, pid: u32) -> (Report, Keyed) {
        let mut report = Report {
            pid,
            ppid: std::os::unix::process::parent_id(),
            rank: self.rank.clone(),
            program: self.program.clone(),
            libtorch: self.libtorch.get().cloned(),
            error: self.error.get().cloned(),
            ..Report::default()
        };
        let Some(session) = self.session.get() else {
            return (report, Keyed::default());
        };
        let kept = session.kept();
        report.runs = session.runs();
        report.flat = graphpatch_torch::is_flat();
        report.graphs = session.graphs();
        report.notes = session.notes();
        report.own_session = report.notes.iter().any(|note| note == OWN_RUNS);
        report.patches = session
            .patch_counts()
            .into_iter()
            .map(|patch| {
                let kept = kept.iter().find(|kept| kept.id == patch.id);
                PatchReport {
                    text: patch.text,
                    matched: patch.matched,
                    applied: patch.applied,
                    failed: patch.failed,
                    last_error: patch.last_error,
                    kept: kept.map_or(0, |kept| kept.values.len() as u64),
                    dropped: kept.map_or(0, |kept| kept.dropped),
                }
            })
            .collect();
        let kept = keyed(&kept);
        report.unsaved.clone_from(&kept.unsaved);
        (report, kept)
    }
}

/// How many threads the process has.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Times in microseconds; `written` 0: never. Reports take at most a twentieth of the time while the graph grows, and
/// a two-hundredth for counts alone.
fn is_due(now: u64, written: u64, took: u64, grown: bool) -> bool {
    const COUNTS: u64 = 100_000;
    let since = now.saturating_sub(written);
    let pause = if grown {
        took.saturating_mul(20)
    } else {
        took.saturating_mul(200).max(COUNTS)
    };
    written == 0 || since >= pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_due() {
        assert!(is_due(1, 0, 0, false), "the first");
        assert!(
            !is_due(1000, 900, 10, true),
            "too soon after a report of that length"
        );
        assert!(is_due(1000, 700, 10, true));
        assert!(!is_due(1000, 700, 10, false), "nothing new");
        assert!(is_due(100_700, 700, 10, false), "counts");
        assert!(
            !is_due(100_700, 700, 1000, false),
            "counts in a large report"
        );
    }

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
        assert!(!is_listed(OsStr::new(""), own));
    }

    #[test]
    fn a_test_is_not_preloaded() {
        open();
        assert!(!is_waiting() && !is_attached_here());
        report_now();
    }
}
