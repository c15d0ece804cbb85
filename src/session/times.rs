//! When the scopes, operations and patches of runs began and ended, for `graphpatch run --trace`.
//!
//! Times are those of the host. On a device, the time is when an operation was handed to it; the work may be done later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use graphpatch_core::path::Name;
use graphpatch_locks::{Mutex, OnceLock};

/// How many spans of a run wait to be taken at most. More are lost, and a note says so.
const MOST: usize = 1 << 20;

/// What a [`Span`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Run,
    Scope,
    Operation,
    Patch,
}

/// Something that took time. A patch begins and ends at the same moment.
#[derive(Clone, Debug)]
pub struct Span {
    pub what: SpanKind,
    /// The path of the scope around it; for a scope, its own path.
    pub scope: Arc<str>,
    /// The name that an operation, or the node of a patch, has in the scope.
    pub name: Option<Name>,
    /// The class of a scope, the schema of an operation, the text of a patch, the name of a run's root.
    pub detail: Arc<str>,
    /// Nanoseconds since 1970.
    pub begin: u64,
    pub end: u64,
    /// The kernel's number of the thread.
    pub thread: i32,
}

/// A scope that is open.
#[derive(Debug)]
struct Open {
    path: Arc<str>,
    class: Arc<str>,
    begin: u64,
}

/// The times of one run.
#[derive(Debug)]
pub(crate) struct Times {
    clock: Clock,
    thread: i32,
    open: Vec<Open>,
    /// Operations that have begun, by their tokens' numbers.
    begun: Vec<(u32, u64)>,
    spans: Vec<Span>,
    lost: bool,
}

/// The clock of a process: it never goes back, and other processes of the machine count from the same moment.
#[derive(Clone, Copy, Debug)]
struct Clock {
    opened: Instant,
    began: u64,
}

impl Clock {
    fn now(&self) -> u64 {
        let passed = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.began.saturating_add(passed)
    }
}

/// The times of a session's runs. Off unless somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    on: AtomicBool,
    clock: OnceLock<Clock>,
    /// The runs that may have more spans.
    pub(crate) runs: Mutex<Vec<Arc<Mutex<Times>>>>,
}

impl Timeline {
    /// The times of a run that begins on this thread, if they are wanted.
    pub(crate) fn begin(&self, root: &str) -> Option<Arc<Mutex<Times>>> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let clock = *self.clock.get()?;
        let root = Open {
            path: "".into(),
            class: root.into(),
            begin: clock.now(),
        };
        let times = Arc::new(Mutex::new(Times {
            clock,
            thread: rustix::thread::gettid().as_raw_nonzero().get(),
            open: vec![root],
            begun: Vec::new(),
            spans: Vec::new(),
            lost: false,
        }));
        self.runs.lock().push(times.clone());
        Some(times)
    }

    /// Whether the times of runs from now on are kept.
    pub(crate) fn set(&self, on: bool) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.clock.get_or_init(|| Clock {
            opened: Instant::now(),
            began: since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0)),
        });
        self.on.store(on, Ordering::Relaxed);
    }

    /// What happened since the last call, run by run, and whether more happened than was kept.
    pub(crate) fn take(&self) -> (Vec<Span>, bool) {
        let mut spans = Vec::new();
        let mut lost = false;
        self.runs.lock().retain(|run| {
            let mut run = run.lock();
            spans.append(&mut run.spans);
            lost |= std::mem::take(&mut run.lost);
            !run.open.is_empty()
        });
        (spans, lost)
    }
}

impl Times {
    fn push(&mut self, span: Span) {
        match self.spans.len() < MOST {
            true => self.spans.push(span),
            false => self.lost = true,
        }
    }

    /// A scope opens inside the innermost one.
    pub(crate) fn enter(&mut self, name: Name, class: &Arc<str>) {
        let outer = self.open.last().map_or("", |open| &*open.path);
        let path = match outer {
            "" => name.to_string(),
            outer => format!("{outer}.{name}"),
        };
        self.open.push(Open {
            path: path.into(),
            class: class.clone(),
            begin: self.clock.now(),
        });
    }

    /// The innermost scope closes.
    pub(crate) fn leave(&mut self) {
        if self.open.len() > 1
            && let Some(open) = self.open.pop()
        {
            self.close(open, SpanKind::Scope);
        }
    }

    fn close(&mut self, open: Open, what: SpanKind) {
        let span = Span {
            what,
            scope: open.path,
            name: None,
            detail: open.class,
            begin: open.begin,
            end: self.clock.now(),
            thread: self.thread,
        };
        self.push(span);
    }

    /// The run is over.
    pub(crate) fn end(&mut self) {
        while let Some(open) = self.open.pop() {
            let what = match self.open.is_empty() {
                true => SpanKind::Run,
                false => SpanKind::Scope,
            };
            self.close(open, what);
        }
    }

    /// An operation is about to be called; `serial` is its token's.
    pub(crate) fn operation(&mut self, serial: u32) {
        let now = self.clock.now();
        self.begun.push((serial, now));
    }

    /// The time at which the operation with this token began, removed from the list: it has returned or thrown.
    pub(crate) fn take(&mut self, serial: u32) -> Option<u64> {
        let at = self.begun.iter().rposition(|begun| begun.0 == serial)?;
        Some(self.begun.swap_remove(at).1)
    }

    /// The path of the scope that was open at this depth.
    fn scope(&self, depth: u32) -> Arc<str> {
        let at = (depth as usize).saturating_sub(1);
        let open = self.open.get(at).or(self.open.last());
        open.map_or_else(|| "".into(), |open| open.path.clone())
    }

    /// An operation has returned.
    pub(crate) fn returned(&mut self, serial: u32, depth: u32, name: Name, schema: &Arc<str>) {
        if let Some(begin) = self.take(serial) {
            let span = Span {
                what: SpanKind::Operation,
                scope: self.scope(depth),
                name: Some(name),
                detail: schema.clone(),
                begin,
                end: self.clock.now(),
                thread: self.thread,
            };
            self.push(span);
        }
    }

    /// A patch has met a value.
    pub(crate) fn patched(&mut self, depth: u32, name: Name, text: &str) {
        let now = self.clock.now();
        let span = Span {
            what: SpanKind::Patch,
            scope: self.scope(depth),
            name: Some(name),
            detail: text.into(),
            begin: now,
            end: now,
            thread: self.thread,
        };
        self.push(span);
    }
}
