//! Flat runs: the runs of a program that reports no module calls. A flat run is as long as its thread, or begins anew at an
//! operation that the user has named. It differs from other runs in three ways: its tape is shared with reports that are
//! written meanwhile; a scope begins where an operation reads a module's parameters, and the same scope may be entered again
//! later; and the number of recorded nodes is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use graphpatch_locks::Mutex;
use rustc_hash::FxHashMap;

use crate::attached::attached_ones;
use crate::frame::Frame;
use crate::ops;
use crate::record::{Recorder, Tape};
use crate::run::{Entered, Run};
use crate::scope::{Root, Scope};
use crate::session::{News, Session};
use crate::value::{Token, ValueKind};
use crate::wants::{ValueWants, Wants};
use graphpatch_core::path::Name;

/// How many nodes of one flat run are recorded. Patches know no such limit.
pub const LIMIT: usize = 20_000;

/// A run reports news at its 1st, 2nd, 4th, 8th ... operation, and at every operation whose number is a multiple of this.
const PERIOD: u64 = 256;

/// How a flat run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// The run is not recorded any more, but its patches still hold; this is what they want of the root's scope.
    Stopped(Wants),
    /// Nothing is wanted of it any more.
    Over,
}

/// A run of a thread that tells of no module calls.
#[derive(Debug)]
pub struct Flat {
    run: Run,
    /// The process's fork count when the run began. A run that began in the parent does not belong to the child.
    epoch: u64,
    /// The frames of scopes that were left, by the address of their [`Scope`].
    parked: FxHashMap<usize, Frame>,
    calls: u64,
    /// How many nodes there were when a report was last asked for.
    reported: usize,
}

impl Flat {
    /// A flat run of `root` for the attached session, or `None` if nothing is wanted of it.
    pub fn begin(root: Arc<Root>) -> Option<(Flat, Wants)> {
        let attached = attached_ones();
        // Flat runs belong to the session of the command, if there is one, since the command asks for them.
        let session = attached.command.or(attached.program)?;
        let (mut run, wants) = Run::begin_for(session.clone(), root)?;
        run.modules = false;
        let mut open = session.open.lock();
        open.begin_run();
        run.recorder = run.recorder.map(|recorder| {
            let tape = Arc::new(Mutex::new(recorder.into_tape()));
            open.add(run.root.clone(), tape.clone());
            Recorder::Shared(tape)
        });
        drop(open);
        let epoch = session.epoch.load(Ordering::Relaxed);
        let flat = Flat {
            run,
            epoch,
            parked: FxHashMap::default(),
            calls: 0,
            reported: 0,
        };
        Some((flat, wants))
    }

    /// The run itself, for what every run can do.
    pub fn run(&mut self) -> &mut Run {
        &mut self.run
    }

    /// The next operation is about to be seen: how the run goes on, and what its session's observer is to be told.
    pub fn advance(&mut self) -> (Next, Option<News>) {
        self.calls += 1;
        let calls = self.calls;
        let mut news = None;
        if calls.is_power_of_two() || calls.is_multiple_of(PERIOD) {
            let nodes = self.run.nodes;
            let grown = std::mem::replace(&mut self.reported, nodes) != nodes;
            news = Some(match grown {
                true => News::Grown,
                false => News::Counts,
            });
        }
        if self.run.recorder.is_none() || self.run.nodes < LIMIT {
            return (Next::GoOn, news);
        }
        self.run.session.note(&format!(
            "{}: a run was recorded up to its {LIMIT}th node; run with --run-at NAME to let a new run begin at each call of \
             operation NAME",
            self.run.root.name
        ));
        self.stop_recording();
        let next = match &self.run.plan {
            Some(_) => Next::Stopped(self.run.wants()),
            None => Next::Over,
        };
        (next, Some(News::Last))
    }

    pub(crate) fn session(&self) -> Arc<Session> {
        self.run.session.clone()
    }

    fn stop_recording(&mut self) {
        if let Some(tape) = self.close() {
            self.run.session.keep(&self.run.root, tape);
        }
        let plan = self.run.plan.clone();
        for frame in self.run.frames.iter_mut().chain(self.parked.values_mut()) {
            frame.look(plan.as_deref(), false);
        }
    }

    /// The run's tape, which is no longer listed among the open ones.
    fn close(&mut self) -> Option<Tape> {
        let recorder = self.run.recorder.take()?;
        if let Recorder::Shared(tape) = &recorder {
            self.run.session.open.lock().remove(tape);
        }
        Some(recorder.into_tape())
    }

    /// The thread ends, or another run begins on it.
    pub fn end(mut self) {
        if let Some(times) = &self.run.times {
            times.lock().end();
        }
        let session = self.session();
        if self.epoch != session.epoch.load(Ordering::Relaxed) {
            return;
        }
        let tape = self.close();
        session.open.lock().end_run();
        session.finish(&self.run.root, tape);
    }

    /// Other modules, or other tensors as their parameters, have become known. Returns what is now wanted of the root's scope.
    pub fn set_root(&mut self, root: Arc<Root>, identities: impl Iterator<Item = usize>) -> Wants {
        let run = &mut self.run;
        run.parameters.clear();
        run.set_parameters(identities);
        if let Some(Recorder::Shared(tape)) = &run.recorder {
            run.session.open.lock().set_root(tape, &root);
        }
        run.root = root;
        let (plan, recording) = (run.plan.clone(), run.recorder.is_some());
        for frame in run.frames.iter_mut().chain(self.parked.values_mut()) {
            frame.learn(&run.root);
            frame.look(plan.as_deref(), recording);
        }
        run.wants()
    }

    /// An operation is about to be called on parameters of the module of this scope. A scope that was entered before continues
    /// where it was left.
    pub fn enter(&mut self, scope: Arc<Scope>) -> Entered {
        let Some(frame) = self.parked.remove(&Arc::as_ptr(&scope).addr()) else {
            return self.run.enter(scope);
        };
        if let (Some(recorder), Some(name)) = (&mut self.run.recorder, frame.name) {
            let mut tape = recorder.tape();
            tape.enter(
                name,
                &scope.class_name,
                &scope.module_path,
                Default::default(),
            );
        }
        if let (Some(times), Some(name)) = (&self.run.times, frame.name) {
            times.lock().enter(name, &scope.class_name);
        }
        Entered {
            wants: self.run.push(frame),
            unknown: None,
        }
    }

    /// The operation has returned.
    pub(crate) fn leave(&mut self) -> Option<&Frame> {
        let frame = self.run.leave()?;
        frame.name?;
        let key = frame.key();
        self.parked.insert(key, frame);
        self.parked.get(&key)
    }

    /// See [`Run::value_begin`]. If the run only patches, names after the last patched one are not counted, since a flat run
    /// can have any number of them.
    pub fn value_begin(&mut self, kind: ValueKind) -> Option<(Token, ValueWants)> {
        let ValueKind::Op(id) = kind else {
            return self.run.value_begin(kind);
        };
        let family = ops::get(id)?.family;
        if self.run.frames.last()?.past.contains(&family) {
            return None;
        }
        let begun = self.run.value_begin(kind)?;
        self.counted(family, begun.0.name);
        Some(begun)
    }

    fn counted(&mut self, family: graphpatch_core::path::Base, name: Name) {
        let (None, Some(plan)) = (&self.run.recorder, &self.run.plan) else {
            return;
        };
        if let Some(frame) = self.run.frames.last_mut()
            && let Some(site) = frame.site
            && name.num > plan.last_number(site, family)
        {
            frame.past.push(family);
        }
    }
}
