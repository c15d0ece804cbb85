//! When a preloaded process's reports are written: after runs, at its end, and before it becomes another program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::process::{self, Process};
use super::python;
use super::times;
use super::undisturbed::Undisturbed;
use graphpatch_protocol::report::{PatchReport, Report, values_name};
use graphpatch_protocol::seal::seal_name;
use graphpatch_protocol::trace::trace_name;
use graphpatch_session::{Keyed, News, OWN_RUNS, OpenLines, keyed};

/// Registers the handlers that write the last report when the process ends by `exit` or `quick_exit`.
pub(super) fn at_end() {
    // SAFETY: the handlers are functions of this library, which a preloaded process never unloads.
    unsafe {
        libc::atexit(at_exit);
        at_quick_exit(at_exit);
    }
}

unsafe extern "C" {
    fn at_quick_exit(handler: extern "C" fn()) -> libc::c_int;
}

extern "C" fn at_exit() {
    report_now();
}

/// Whether a report may be written on this thread: a filter of the program's own might end it there.
pub fn may_write() -> bool {
    process::get().is_some_and(|process| !process.reports.seal.is_closed())
}

/// Writes the last report. For the end of the process.
pub fn report_now() {
    if process::is_attached_here()
        && let Some(process) = process::get()
    {
        process.write(Wait::Yes);
    }
}

/// Writes the last report of a process that is about to become another program; the `exec` may still fail. A forked child
/// without runs writes none: it has nothing to report, and may call little between `fork` and `exec`.
pub fn report_before_exec() {
    let session = process::get().and_then(|process| process.session.get());
    if process::is_attached_here() && session.is_some_and(|session| session.runs() > 0) {
        report_now();
    }
}

/// About how long the lines of a small program take to read, in microseconds.
const READING: u64 = 10_000;

/// Whether to wait for another thread's report to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// Wait as for the last report, but this one is not the process's last.
    Soon,
    Yes,
}

impl Process {
    /// Writes a report before the first run, for a process that is killed before that run ends. It does not count as the last
    /// one written, so that the report of the first run is written at once.
    pub(super) fn write_first(&self) {
        self.write(Wait::No);
        self.reports.written.store(0, Ordering::Relaxed);
    }

    /// Called after every run, on its thread. A report may cost as much as a run. So the first is written at once, later ones
    /// soon after the graph has grown, and less often for the counts alone. A process that is killed then loses little.
    pub(super) fn on_news(&self, news: News) {
        if news != News::Counts {
            self.reports.grown.store(true, Ordering::Relaxed);
        }
        if news == News::Last {
            return self.write(Wait::Soon);
        }
        let (written, took) = (
            self.reports.written.load(Ordering::Relaxed),
            self.reports.took.load(Ordering::Relaxed),
        );
        if is_due(
            self.reports.now(),
            written,
            took,
            self.reports.grown.load(Ordering::Relaxed),
        ) {
            self.write(Wait::No);
        }
    }

    fn write(&self, wait: Wait) {
        let pid = std::process::id();
        if pid != self.pid.load(Ordering::Relaxed) || self.reports.seal.is_closed() {
            return;
        }
        let _whole = Undisturbed::new();
        let mut tries = 0;
        while self
            .reports
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
        let before = self.reports.now();
        self.reports.grown.store(false, Ordering::Relaxed);
        // A full disk or a directory that is gone costs the report, nothing else.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let lines = self.lines(wait);
            let (mut report, kept) = self.report(pid, lines);
            report.unseen_python = wait == Wait::Yes && self.is_unseen_python();
            if report.runs > 0 || report.error.is_some() || !self.forked.load(Ordering::Relaxed) {
                let (dir, name) = (&self.options.report_dir, self.file_name(pid));
                self.reports.seal.prepare(&dir.join(seal_name(&name)));
                if report.save(dir, &name).is_ok() {
                    self.reports.seal.reported();
                }
                let took = self.reports.now() - before;
                let took = match lines {
                    OpenLines::Read => took,
                    // The next report has yet to read lines, so it must not follow at once.
                    OpenLines::Skip => took.max(READING),
                };
                self.reports.took.store(took, Ordering::Relaxed);
                self.write_times(pid);
                self.write_values(report, &kept, wait == Wait::Yes);
            }
        }));
        self.reports
            .written
            .store(self.reports.now(), Ordering::Relaxed);
        self.reports.writing.store(false, Ordering::Release);
    }

    /// Errors are ignored: without this file only the trace is incomplete.
    fn write_times(&self, pid: u32) {
        if let Some(session) = self.session.get().filter(|_| self.options.trace) {
            let file = self
                .options
                .report_dir
                .join(trace_name(&self.file_name(pid)));
            let _ = times::write(session, pid, &file);
        }
    }

    /// Writes the kept values after the report, since they may be large. If that fails, the report is written again to say so.
    fn write_values(&self, mut report: Report, kept: &Keyed, last: bool) {
        let (dir, name) = (&self.options.report_dir, self.file_name(report.pid));
        if let Err(why) = self
            .reports
            .values
            .write(kept, &dir.join(values_name(&name)), last)
        {
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

    /// `exec` keeps the process id, so the time tells the reports of the process's programs apart.
    fn file_name(&self, pid: u32) -> String {
        format!("report-{pid}-{}.json", self.reports.started)
    }

    /// The first report of a flat run comes with its first operation, for a process that is killed soon. Reading the debug
    /// information of the program would take longer than all the rest of it, and a later report does so.
    fn lines(&self, wait: Wait) -> OpenLines {
        match wait == Wait::No && self.reports.written.load(Ordering::Relaxed) == 0 {
            true => OpenLines::Skip,
            false => OpenLines::Read,
        }
    }

    fn report(&self, pid: u32, lines: OpenLines) -> (Report, Keyed) {
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
        report.graphs = session.graphs_so_far(lines);
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

/// Whether a report is due. Times are in microseconds; `written` is 0 if none was written yet. Reports take at most a
/// twentieth of the time while the graph grows, and a two-hundredth for counts alone.
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
}
