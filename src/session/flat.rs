//! Flat runs: those of a program that tells of no module calls. A run is as long as its thread, or begins anew at an
//! operation that the user has named. So its tape is shared with whoever writes a report meanwhile; its scopes are those
//! of modules whose parameters an operation reads, and one that was left is entered again; and what it keeps is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graphpatch_locks::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use super::run::{Frame, Interest, Run};
use super::{News, Root, Session, ops};
use crate::attached::attached_ones;
use crate::record::Tape;
use graphpatch_core::graph::Graph;
use graphpatch_core::path::Name;

/// How many nodes of one flat run are recorded. Patches know no such limit.
pub const LIMIT: usize = 20_000;

/// How often a run asks whether a report is due: at its 1st, 2nd, 4th ... operation, later at each so many.
const PERIOD: u64 = 256;

/// How long a report waits for a run that is just writing. Its thread may be the one that reports, from a signal handler.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a run writes on: its own alone, or shared with those who write reports.
#[derive(Debug)]
pub(super) enum Recorder {
    Own(Box<Tape>),
    Shared(Arc<Mutex<Tape>>),
}

/// The tape, for a moment.
pub(super) enum Writing<'a> {
    Own(&'a mut Tape),
    Shared(MutexGuard<'a, Tape>),
}

impl Recorder {
    pub(super) fn tape(&mut self) -> Writing<'_> {
        match self {
            Recorder::Own(tape) => Writing::Own(tape),
            Recorder::Shared(tape) => Writing::Shared(tape.lock()),
        }
    }

    pub(super) fn into_tape(self) -> Tape {
        match self {
            Recorder::Own(tape) => *tape,
            Recorder::Shared(tape) => std::mem::take(&mut *tape.lock()),
        }
    }
}

impl std::ops::Deref for Writing<'_> {
    type Target = Tape;

    fn deref(&self) -> &Tape {
        match self {
            Writing::Own(tape) => tape,
            Writing::Shared(tape) => tape,
        }
    }
}

impl std::ops::DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Tape {
        match self {
            Writing::Own(tape) => tape,
            Writing::Shared(tape) => tape,
        }
    }
}

/// What a flat run has beside the others.
#[derive(Debug, Default)]
pub(super) struct Flat {
    /// The process's fork count when it began; a run that began in the parent is none of the child's.
    epoch: u64,
    /// Scopes that were left, by the address of what describes them.
    parked: FxHashMap<usize, Frame>,
    calls: u64,
    pub(super) nodes: usize,
    /// `nodes` when a report was last asked for.
    told: usize,
}

/// The flat runs that are under way.
#[derive(Default)]
pub(super) struct Open {
    runs: u64,
    tapes: Vec<(Arc<Root>, Arc<Mutex<Tape>>)>,
}

/// How a flat run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// It is not recorded any more; its patches hold on, with this interest in the root.
    Stopped(Interest),
    /// Nothing is wanted of it any more.
    Over,
}

impl Run {
    /// A flat run of `root` for the attached session, or `None` if nothing is wanted of it.
    pub fn begin_flat(root: Arc<Root>) -> Option<(Run, Interest)> {
        let attached = attached_ones();
        // It is the command that asks for them, where there is one.
        let session = attached.command.or(attached.program)?;
        let (mut run, interest) = Run::begin_for(session.clone(), root)?;
        run.flat = Some(Box::new(Flat {
            epoch: session.epoch.load(Ordering::Relaxed),
            ..Flat::default()
        }));
        let mut open = session.open.lock();
        open.runs += 1;
        run.recorder = run.recorder.map(|recorder| {
            let tape = Arc::new(Mutex::new(recorder.into_tape()));
            open.tapes.push((run.root.clone(), tape.clone()));
            Recorder::Shared(tape)
        });
        drop(open);
        Some((run, interest))
    }

    /// A flat run is about to see its next operation.
    pub fn advance(&mut self) -> Next {
        let recording = self.recorder.is_some();
        let Some(flat) = &mut self.flat else {
            return Next::GoOn;
        };
        flat.calls += 1;
        let calls = flat.calls;
        if calls.is_power_of_two() || calls.is_multiple_of(PERIOD) {
            let grown = std::mem::replace(&mut flat.told, flat.nodes) != flat.nodes;
            self.session.observe(match grown {
                true => News::Grown,
                false => News::Counts,
            });
        }
        if !recording || flat.nodes < LIMIT {
            return Next::GoOn;
        }
        self.session.note(&format!(
            "{}: a run was recorded up to its {LIMIT}th node; run with --run-at NAME to let a new run begin at each call of \
             operation NAME",
            self.root.name
        ));
        self.stop_recording();
        match &self.plan {
            Some(_) => Next::Stopped(self.interest()),
            None => {
                self.session.observe(News::Last);
                Next::Over
            }
        }
    }

    fn stop_recording(&mut self) {
        if let Some(tape) = self.close() {
            self.session.keep(&self.root, tape);
        }
        let plan = self.plan.clone();
        let parked = self
            .flat
            .iter_mut()
            .flat_map(|flat| flat.parked.values_mut());
        for frame in self.frames.iter_mut().chain(parked) {
            frame.look(plan.as_deref(), false);
        }
    }

    /// The tape, taken from the list of those under way.
    fn close(&mut self) -> Option<Tape> {
        let recorder = self.recorder.take()?;
        if let Recorder::Shared(tape) = &recorder {
            let mut open = self.session.open.lock();
            open.tapes.retain(|(_, other)| !Arc::ptr_eq(other, tape));
        }
        Some(recorder.into_tape())
    }

    /// A flat run that ends.
    pub(super) fn end_flat(mut self, flat: &Flat) {
        if flat.epoch != self.session.epoch.load(Ordering::Relaxed) {
            return;
        }
        let tape = self.close();
        {
            let mut open = self.session.open.lock();
            open.runs = open.runs.saturating_sub(1);
        }
        self.session.finish(&self.root, tape);
    }

    /// Modules have become known, or other tensors have become their parameters; what is wanted of the root's scope now.
    pub fn set_root(
        &mut self,
        root: Arc<Root>,
        identities: impl Iterator<Item = usize>,
    ) -> Interest {
        self.parameters.clear();
        self.set_parameters(identities);
        if let Some(Recorder::Shared(tape)) = &self.recorder {
            let mut open = self.session.open.lock();
            for (known, _) in open.tapes.iter_mut().filter(|o| Arc::ptr_eq(&o.1, tape)) {
                *known = root.clone();
            }
        }
        self.root = root;
        let (plan, recording) = (self.plan.clone(), self.recorder.is_some());
        let parked = self
            .flat
            .iter_mut()
            .flat_map(|flat| flat.parked.values_mut());
        for frame in self.frames.iter_mut().chain(parked) {
            frame.learn(&self.root);
            frame.look(plan.as_deref(), recording);
        }
        self.interest()
    }

    /// The scope as it was left, if this is a flat run that has met it.
    pub(super) fn unpark(&mut self, scope: usize) -> Option<Frame> {
        self.flat.as_mut()?.parked.remove(&scope)
    }

    /// A scope was left; a flat run may come back to it.
    pub(super) fn park(&mut self, frame: Frame) {
        if let Some(flat) = &mut self.flat
            && frame.name.is_some()
        {
            flat.parked.insert(frame.key(), frame);
        }
    }

    /// Operation number `op` got this name. In a flat run that only patches, names behind the last patched one need not
    /// be counted: there may be no end of them.
    pub(super) fn counted(&mut self, op: u32, name: Name) {
        let (Some(_), None, Some(plan)) = (&self.flat, &self.recorder, &self.plan) else {
            return;
        };
        if let (Some(frame), Some(op)) = (self.frames.last_mut(), ops::get(op))
            && let Some(site) = frame.site
            && name.num > plan.last_number(site, op.family)
        {
            frame.past.push(op.family);
        }
    }
}

impl Frame {
    /// Parameters that are known since this scope was met get a name as well.
    fn learn(&mut self, root: &Root) {
        let Some(old) = &self.prepared else { return };
        let new = self.scope.prepared(root, &self.base);
        let mut missing: Vec<(u32, (Name, bool))> = new
            .parameters
            .iter()
            .filter(|(index, _)| !old.parameters.contains_key(index))
            .map(|(index, known)| (*index, *known))
            .collect();
        if missing.is_empty() {
            return;
        }
        missing.sort_unstable_by_key(|(index, _)| *index);
        let mut parameters = old.parameters.clone();
        for (index, (name, own)) in missing {
            let name = if own { self.names.create(name) } else { name };
            parameters.insert(index, (name, own));
        }
        self.prepared = Some(Arc::new(old.with_parameters(parameters)));
    }
}

impl Session {
    /// How many flat runs are under way.
    pub(super) fn open_runs(&self) -> u64 {
        self.open.lock().runs
    }

    /// Adds what the flat runs that are under way have recorded so far.
    pub(super) fn add_open(&self, graphs: &mut Vec<Graph>) {
        let open = self.open.lock().tapes.clone();
        for (root, tape) in open {
            let copy = tape.try_lock_for(PATIENCE).map(|tape| tape.clone());
            let Some(tape) = copy else { continue };
            let part = Graph {
                root: tape.tree(&root.scope.class_name),
                runs: 1,
                ..Graph::new(root.name.as_str())
            };
            match graphs.iter_mut().find(|graph| graph.name == root.name) {
                Some(graph) => graph.merge(part),
                None => graphs.push(part),
            }
        }
    }
}
