//! One call of a root: names every value as it appears, records it, and says which patches it meets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::attached::{attached_ones, is_disabled};
use crate::frame::Frame;
use crate::held::Held;
use crate::opened::Opened;
use crate::record::{Args, Recorder};
use crate::scope::{Root, Scope};
use crate::session::Session;
use crate::times::Times;
use crate::value_path::InnerScope;
use crate::wants::Wants;
use graphpatch_core::patch::Plan;
use graphpatch_core::path::{Base, Name};
use graphpatch_locks::Mutex;

/// The note in the command's session about a program that opens a session itself.
pub const OWN_RUNS: &str = "the program has a session of its own: runs that it records or patches itself are not recorded or patched here";

/// One call of a root on one thread.
#[derive(Debug)]
pub struct Run {
    /// A number that no other run of the process has.
    pub(crate) id: u64,
    pub(crate) session: Arc<Session>,
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) root: Arc<Root>,
    pub(crate) recorder: Option<Recorder>,
    /// The times of what happens in the run, if they are wanted.
    pub(crate) times: Option<Arc<Mutex<Times>>>,
    pub(crate) frames: Vec<Frame>,
    /// How many scopes of which nothing is wanted are open inside the innermost frame's scope. These scopes have no frames.
    pub(crate) cold: u32,
    /// How many frames have been opened so far.
    pub(crate) met: u32,
    /// How many values have begun, and how many nodes were recorded.
    pub(crate) values: u32,
    pub(crate) nodes: usize,
    /// Which patches of the plan hold in this run; empty if all do.
    pub(crate) holding: Vec<bool>,
    /// The parameters that a tensor is, by the tensor's identity.
    pub(crate) parameters: FxHashMap<usize, SmallVec<[u32; 1]>>,
    /// The arguments of values that are about to appear, by the serial numbers of their tokens.
    pub(crate) made_from: Vec<(u32, Args)>,
    /// The same for the scopes around values of compiled code.
    pub(crate) inside: Vec<(u32, Arc<[InnerScope]>)>,
    pub(crate) opened: Opened,
    pub(crate) failure: String,
    /// The paths of values, if a host asked for them: see [`Run::named`].
    pub(crate) named: Option<String>,
    /// Patches on CUDA values that are not launched yet.
    pub(crate) queue: graphpatch_cuda::Queue,
    pub(crate) no_target: Arc<str>,
    /// Whether this run computes a part of another run, so that it is not counted as one itself.
    pub(crate) resumed: bool,
    /// Whether the host reports calls of modules.
    pub(crate) modules: bool,
    /// What the adapter keeps alive for this run, and for the run that this one is a part of.
    pub(crate) held: Option<Arc<dyn Held>>,
    pub(crate) origin: Vec<Arc<dyn Held>>,
}

/// The result of entering a scope.
#[derive(Clone, Copy, Debug)]
pub struct Entered {
    pub wants: Wants,
    /// The tape's event whose call has no known place in the user's source yet, and whether the scope's code is TorchScript.
    pub(crate) unknown: Option<(usize, bool)>,
}

impl Run {
    /// A run of `root` for an attached session, or `None` if none wants anything of it. The command's session gets a run only
    /// if the program's own session wants nothing of it.
    pub fn begin(root: Arc<Root>) -> Option<(Run, Wants)> {
        let attached = attached_ones();
        let Some(program) = attached.program else {
            return Run::begin_for(attached.command?, root);
        };
        let Some(command) = attached.command else {
            return Run::begin_for(program, root);
        };
        if let Some(run) = Run::begin_for(program, root.clone()) {
            command.note(OWN_RUNS);
            return Some(run);
        }
        Run::begin_for(command, root)
    }

    /// The same for a session of the caller's choice.
    pub fn begin_for(session: Arc<Session>, root: Arc<Root>) -> Option<(Run, Wants)> {
        if is_disabled() {
            return None;
        }
        session.run_begins();
        let number = session.next_run(&root.name);
        let tape = session.new_tape(&root.name);
        let mut plan = session.plan();
        let mut holding = Vec::new();
        if let Some(conditional) = plan.as_ref().filter(|plan| plan.conditional) {
            holding = conditional
                .patches
                .iter()
                .map(|p| p.holds(&root.name, number))
                .collect();
            if !holding.contains(&true) {
                plan = None;
            }
        }
        if plan.is_none() && tape.is_none() {
            return None;
        }
        if plan.is_some() && Session::warms_before(number) {
            session.warm_devices();
        }
        let scope = root.scope.clone();
        let recorder = tape.map(|tape| Recorder::Own(Box::new(tape)));
        let mut run = Run {
            holding,
            ..Run::new(session, plan, root, recorder)
        };
        let site = run.plan.is_some().then_some(Plan::ROOT);
        let parameters = run.wants_parameters();
        let wants = run.open(None, scope, site, None);
        Some((run, wants.with(Wants::PARAMETERS, parameters)))
    }

    pub(crate) fn new(
        session: Arc<Session>,
        plan: Option<Arc<Plan>>,
        root: Arc<Root>,
        recorder: Option<Recorder>,
    ) -> Run {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let times = session.timeline.begin(&root.name);
        let opened = Opened::of(&session);
        Run {
            times,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            session,
            plan,
            root,
            recorder,
            frames: Vec::with_capacity(8),
            cold: 0,
            met: 0,
            values: 0,
            nodes: 0,
            holding: Vec::new(),
            parameters: FxHashMap::default(),
            made_from: Vec::new(),
            inside: Vec::new(),
            opened,
            failure: String::new(),
            named: None,
            queue: graphpatch_cuda::Queue::default(),
            no_target: Arc::default(),
            resumed: false,
            modules: true,
            held: None,
            origin: Vec::new(),
        }
    }

    /// Whether [`Run::set_parameters`] is worth the work.
    fn wants_parameters(&self) -> bool {
        let patched = |plan: &Arc<Plan>| self.root.may_patch_parameter(plan);
        self.recorder.is_some() || self.plan.as_ref().is_some_and(patched)
    }

    /// Opens a scope. A scope without a name is open only for parameters that patches may change in it.
    pub(crate) fn open(
        &mut self,
        name: Option<Name>,
        scope: Arc<Scope>,
        site: Option<u32>,
        event: Option<usize>,
    ) -> Wants {
        let wanted = self.recorder.is_some() || site.is_some();
        let outer = self.frames.last().map(|frame| frame.base.clone());
        let outer = outer.unwrap_or_default();
        let mut frame = Frame::new(name, scope, site, &self.root, &outer, wanted);
        frame.event = event;
        frame.look(self.plan.as_deref(), self.recorder.is_some());
        self.push(frame)
    }

    /// Opens a scope with this frame. A frame that was left and is opened again gets a new number.
    pub(crate) fn push(&mut self, mut frame: Frame) -> Wants {
        self.met += 1;
        frame.serial = self.met;
        self.frames.push(frame);
        self.wants()
    }

    /// What is wanted of the innermost scope.
    pub fn wants(&self) -> Wants {
        match self.frames.last() {
            Some(frame) if self.cold == 0 => frame.wants,
            _ => Wants::NOTHING,
        }
    }

    /// 1 if nothing is wanted of the innermost frame's scope itself, else 0.
    pub(crate) fn cold_frames(&self) -> u32 {
        let frame = self.frames.last();
        u32::from(frame.is_none_or(|frame| frame.wants.is_cold()))
    }

    /// How many scopes are open, the root's included.
    pub fn depth(&self) -> u32 {
        self.frames.len() as u32 + self.cold
    }

    /// Whether a name of this family has to be counted in the innermost scope. Most need not be if the run only patches.
    pub(crate) fn concerns(&self, family: Base) -> bool {
        let site = self.frames.last().and_then(|frame| frame.site);
        match (&self.recorder, &self.plan, site) {
            (Some(_), ..) => true,
            (None, Some(plan), Some(site)) => plan.concerns(site, family),
            _ => false,
        }
    }

    /// The site of the child `name` of the frame at `level`.
    pub(crate) fn site(&self, level: usize, name: Name) -> Option<u32> {
        let frame = self.frame(level)?;
        self.plan.as_ref()?.child(frame.site?, name)
    }

    pub(crate) fn frame(&self, level: usize) -> Option<&Frame> {
        self.frames
            .len()
            .checked_sub(level + 1)
            .map(|at| &self.frames[at])
    }

    pub(crate) fn has_targets(&self, site: Option<u32>) -> bool {
        match (&self.plan, site) {
            (Some(plan), Some(site)) => plan.targets(site).iter().any(|t| self.holds(t.patch)),
            _ => false,
        }
    }

    /// Whether patch `index` of the plan holds in this run.
    pub fn holds(&self, index: u32) -> bool {
        self.holding.get(index as usize).copied().unwrap_or(true)
    }

    /// Adds a note for the user to the session.
    pub fn note(&self, text: &str) {
        self.session.note(text);
    }

    /// See [`Session::first_note`].
    pub fn first_note(&self, about: u64) -> bool {
        self.session.first_note(about)
    }

    /// The run's patches, whose sites the other calls name by number.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// The root returned or threw: what was recorded goes into the session's graph.
    pub fn end(self) {
        let mut this = self;
        if let Some(held) = &this.held {
            held.end();
        }
        if let Some(times) = &this.times {
            times.lock().end();
        }
        let tape = this.recorder.take().map(Recorder::into_tape);
        match (this.resumed, tape) {
            (false, tape) => this.session.finish(&this.root, tape),
            (true, Some(tape)) => this.session.add_part(&this.root, tape),
            (true, None) => {}
        }
    }
}
