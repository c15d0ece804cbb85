//! One call of a root: names every value as it appears, records it, and says which patches it meets.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::flat::{Flat, Recorder};
use super::scope::{Prepared, Root, Scope};
use super::{Session, ops};
use crate::attached::{attached_ones, is_disabled};
use crate::record::{Args, Element, Source, Tag};
use graphpatch_core::graph::{Frame as Place, Kind};
use graphpatch_core::patch::Plan;
use graphpatch_core::path::{Base, Name, Namespace};

/// What the command's session notes of a program that has another one.
pub const OWN_RUNS: &str = "the program has a session of its own: runs that it records or patches itself are not recorded or patched here";

/// What kind of value is about to appear in the innermost scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The result of operation number `.0`.
    Op(u32),
    /// The scope's argument at this index.
    Input(u32),
    Output,
}

impl From<ValueKind> for Kind {
    fn from(kind: ValueKind) -> Kind {
        match kind {
            ValueKind::Op(_) => Kind::Op,
            ValueKind::Input(_) => Kind::Input,
            ValueKind::Output => Kind::Output,
        }
    }
}

/// What the run wants to know of a scope's inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Its operations are to be intercepted.
    pub arm: bool,
    /// Nothing in it or below it matters.
    pub cold: bool,
    /// Operands are to be shown before they are read.
    pub operands: bool,
    /// Its inputs are wanted, its output is.
    pub inputs: bool,
    pub output: bool,
    /// Everything is recorded.
    pub record: bool,
    /// Of a run: who its parameters are ([`Run::set_parameters`]).
    pub parameters: bool,
    /// Cold, and so is every call of the same module from the same place while the patches stay as they are.
    pub ignored: bool,
    /// Its place among the patches.
    pub site: Option<u32>,
    /// From where it is called ([`Run::called_from`]): no earlier run came to it.
    pub source: bool,
}

/// What the run wants to know of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its elements, to record them.
    pub elements: bool,
    /// To have the targets applied that [`Run::targets`] gives.
    pub targets: bool,
    /// To be told what the value is made from ([`Run::args`]).
    pub args: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// What it is called, and by whom it is described; the root has no name.
    pub(super) name: Option<Name>,
    pub(super) scope: Arc<Scope>,
    /// None in a scope of which nothing is wanted.
    pub(super) prepared: Option<Arc<Prepared>>,
    /// See [`Scope::base`].
    pub(super) base: Arc<str>,
    pub(super) site: Option<u32>,
    pub(super) names: Namespace,
    /// Parameters that have a node already: index in the root, name.
    parameters: SmallVec<[(u32, Name); 4]>,
    /// See [`Scope::opaque`].
    pub(super) opaque: bool,
    /// What is wanted of the scope, as long as neither the root's parameters nor the recording change.
    pub(super) interest: Interest,
    /// Families of operations' names that are counted no more, see [`Run::counted`].
    pub(super) past: SmallVec<[Base; 2]>,
}

impl Frame {
    /// The same for every call of the scope.
    pub(super) fn key(&self) -> usize {
        Arc::as_ptr(&self.scope).addr()
    }

    /// Finds out what is wanted of the scope, under these patches.
    pub(super) fn look(&mut self, plan: Option<&Plan>, record: bool) {
        let Some(prepared) = &self.prepared else {
            self.interest = Interest {
                cold: true,
                ..Interest::default()
            };
            return;
        };
        let mut interest = Interest {
            inputs: record,
            output: record,
            record,
            site: self.site,
            ..Interest::default()
        };
        let (mut parameters, mut operations) = (false, false);
        if let (Some(plan), Some(site)) = (plan, self.site) {
            operations = plan.families(site).any(ops::is_family);
            for name in plan.patched_names(site) {
                interest.inputs |= prepared.inputs.contains(&name);
                interest.output |= prepared.output == name;
                parameters = parameters || prepared.may_be_parameter(name);
            }
        }
        interest.operands = !self.opaque && (record || parameters);
        interest.arm = !self.opaque && (record || parameters || operations);
        self.interest = interest;
    }
}

#[derive(Debug)]
struct Pending {
    kind: ValueKind,
    name: Name,
    site: Option<u32>,
    args: Option<Args>,
}

/// Where a run stands, for a part of it that is computed elsewhere: again later, or on another thread.
#[derive(Debug)]
pub struct Snapshot {
    session: Arc<Session>,
    plan: Option<Arc<Plan>>,
    recording: bool,
    root: Arc<Root>,
    frames: Vec<Frame>,
    holding: Vec<bool>,
    parameters: FxHashMap<usize, SmallVec<[u32; 1]>>,
}

/// One call of a root on one thread.
#[derive(Debug)]
pub struct Run {
    pub(super) session: Arc<Session>,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) root: Arc<Root>,
    pub(super) recorder: Option<Recorder>,
    pub(super) frames: Vec<Frame>,
    /// Which patches of the plan hold in this run; empty: all.
    holding: Vec<bool>,
    /// Identity of a tensor → the parameters that it is.
    pub(super) parameters: FxHashMap<usize, SmallVec<[u32; 1]>>,
    pending: Option<Pending>,
    pub(super) failure: String,
    /// Patches on CUDA values that are not launched yet.
    pub(super) queue: graphpatch_cuda::Queue,
    no_target: Arc<str>,
    /// It computes a part of another run, and counts as none itself.
    resumed: bool,
    pub(super) flat: Option<Box<Flat>>,
}

impl Run {
    /// A run of `root` for the attached session, or `None` if nothing is wanted of it. The command's session gets those
    /// of which the program's own one wants nothing.
    pub fn begin(root: Arc<Root>) -> Option<(Run, Interest)> {
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
    pub fn begin_for(session: Arc<Session>, root: Arc<Root>) -> Option<(Run, Interest)> {
        if is_disabled() {
            return None;
        }
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
        let scope = root.scope.clone();
        let mut run = Run {
            session,
            plan,
            root,
            recorder: tape.map(|tape| Recorder::Own(Box::new(tape))),
            frames: Vec::with_capacity(8),
            holding,
            parameters: FxHashMap::default(),
            pending: None,
            failure: String::new(),
            queue: graphpatch_cuda::Queue::default(),
            no_target: Arc::default(),
            resumed: false,
            flat: None,
        };
        let site = run.plan.is_some().then_some(Plan::ROOT);
        let mut interest = run.open(None, scope, site);
        interest.parameters = run.wants_parameters();
        Some((run, interest))
    }

    /// Where the run stands.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            session: self.session.clone(),
            plan: self.plan.clone(),
            recording: self.recorder.is_some(),
            root: self.root.clone(),
            frames: self.frames.clone(),
            holding: self.holding.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// A run that stands where the other one stood, under its patches. With `record` it is recorded if that one is:
    /// what it does adds to the scopes that are open. `None` where nothing is wanted.
    pub fn resume(from: &Snapshot, record: bool) -> Option<(Run, Interest)> {
        let record = record && from.recording;
        if from.plan.is_none() && !record {
            return None;
        }
        let mut tape = record.then(|| from.session.part_tape(&from.root.name));
        if let Some(tape) = &mut tape {
            for frame in &from.frames {
                if let Some(name) = frame.name {
                    let scope = &frame.scope;
                    let source = Source::default();
                    tape.enter(name, &scope.class_name, &scope.module_path, source);
                }
            }
        }
        let run = Run {
            session: from.session.clone(),
            plan: from.plan.clone(),
            root: from.root.clone(),
            recorder: tape.map(|tape| Recorder::Own(Box::new(tape))),
            frames: from.frames.clone(),
            holding: from.holding.clone(),
            parameters: from.parameters.clone(),
            pending: None,
            failure: String::new(),
            queue: graphpatch_cuda::Queue::default(),
            no_target: Arc::default(),
            resumed: true,
            flat: None,
        };
        let interest = run.interest();
        Some((run, interest))
    }

    /// Whether [`Run::set_parameters`] is worth the work.
    fn wants_parameters(&self) -> bool {
        let patched = |plan: &Arc<Plan>| self.root.may_patch_parameter(plan);
        self.recorder.is_some() || self.plan.as_ref().is_some_and(patched)
    }

    /// Identities of the root's parameters, in the root's order; 0 where there is no tensor.
    pub fn set_parameters(&mut self, identities: impl Iterator<Item = usize>) {
        for (index, identity) in identities.enumerate() {
            if identity != 0 {
                self.parameters
                    .entry(identity)
                    .or_default()
                    .push(index as u32);
            }
        }
    }

    fn open(&mut self, name: Option<Name>, scope: Arc<Scope>, site: Option<u32>) -> Interest {
        let wanted = self.recorder.is_some() || site.is_some();
        let outer = self.frames.last().map(|frame| frame.base.clone());
        let base = scope.base(&outer.unwrap_or_default());
        let prepared = wanted.then(|| scope.prepared(&self.root, &base));
        let mut frame = Frame {
            names: match &prepared {
                Some(prepared) => prepared.names.clone(),
                None => Namespace::new(),
            },
            prepared,
            base,
            site,
            parameters: SmallVec::new(),
            opaque: scope.opaque,
            interest: Interest::default(),
            name,
            scope,
            past: SmallVec::new(),
        };
        frame.look(self.plan.as_deref(), self.recorder.is_some());
        self.frames.push(frame);
        self.interest()
    }

    /// What is wanted of the innermost scope.
    pub(super) fn interest(&self) -> Interest {
        self.frames
            .last()
            .map_or_else(Interest::default, |frame| frame.interest)
    }

    /// Whether a name of this family has to be counted in the innermost scope. When only patching, most do not.
    fn concerns(&self, family: Base) -> bool {
        let site = self.frames.last().and_then(|frame| frame.site);
        match (&self.recorder, &self.plan, site) {
            (Some(_), ..) => true,
            (None, Some(plan), Some(site)) => plan.concerns(site, family),
            _ => false,
        }
    }

    /// The site of the child `name` of the frame at `level`.
    fn site(&self, level: usize, name: Name) -> Option<u32> {
        let frame = self.frame(level)?;
        self.plan.as_ref()?.child(frame.site?, name)
    }

    fn frame(&self, level: usize) -> Option<&Frame> {
        self.frames
            .len()
            .checked_sub(level + 1)
            .map(|at| &self.frames[at])
    }

    /// A module is called from the innermost scope.
    pub fn enter(&mut self, scope: Arc<Scope>) -> Interest {
        if let Some(frame) = self.unpark(Arc::as_ptr(&scope).addr()) {
            if let (Some(recorder), Some(name)) = (&mut self.recorder, frame.name) {
                let mut tape = recorder.tape();
                tape.enter(
                    name,
                    &scope.class_name,
                    &scope.module_path,
                    Source::default(),
                );
            }
            self.frames.push(frame);
            return self.interest();
        }
        if !self.concerns(scope.family()) {
            return Interest {
                ignored: true,
                ..self.open(None, scope, None)
            };
        }
        let name = match self.frames.last_mut() {
            Some(frame) => frame.names.create(scope.candidate()),
            None => scope.candidate(),
        };
        let site = self.site(0, name);
        let mut new = false;
        if let Some(recorder) = &mut self.recorder {
            let known = recorder.tape().knows_scope(name);
            // A flat run does not see calls of modules, only operations on their parameters.
            let source = match known || self.flat.is_some() {
                true => Source::default(),
                false => self.session.source(scope.is_script()),
            };
            let mut tape = recorder.tape();
            tape.enter(name, &scope.class_name, &scope.module_path, source);
            new = !known;
        }
        Interest {
            source: new,
            ..self.open(Some(name), scope, site)
        }
    }

    /// The lines of TorchScript source from which the scope was called that was entered last.
    pub fn called_from(&mut self, frames: Vec<Place>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tape().called_from(frames);
        }
    }

    /// The innermost module has returned; what is wanted of the scope around it.
    pub fn leave(&mut self) -> Interest {
        if self.frames.len() > 1
            && let Some(frame) = self.frames.pop()
        {
            if let Some(recorder) = &mut self.recorder {
                recorder.tape().leave();
            }
            self.park(frame);
        }
        self.interest()
    }

    /// Tensors that the scope at `level` is about to read. Parameters among them get their node now. Calls
    /// `replace` with the index of each that has patches.
    pub fn operands(
        &mut self,
        level: usize,
        tensors: &[Element<'_>],
        mut replace: impl FnMut(usize),
    ) {
        for (index, element) in tensors.iter().enumerate() {
            if element.tag != Tag::Tensor || !self.parameters.contains_key(&element.identity) {
                continue;
            }
            if let Some(name) = self.parameter(level, element)
                && self.has_targets(self.site(level, name))
            {
                replace(index);
            }
        }
    }

    /// The name of the parameter that the tensor is in the scope at `level`, with a node for it.
    fn parameter(&mut self, level: usize, element: &Element<'_>) -> Option<Name> {
        let at = self.frames.len().checked_sub(level + 1)?;
        let frame = &mut self.frames[at];
        let prepared = frame.prepared.as_ref()?;
        let (index, (name, own)) = self
            .parameters
            .get(&element.identity)?
            .iter()
            .find_map(|index| Some((*index, *prepared.parameters.get(index)?)))?;
        if let Some((_, name)) = frame.parameters.iter().find(|known| known.0 == index) {
            return Some(*name);
        }
        let name = if own { name } else { frame.names.create(name) };
        frame.parameters.push((index, name));
        if let Some(recorder) = &mut self.recorder {
            let value = std::slice::from_ref(element);
            recorder.tape().leaf(
                level,
                Kind::Parameter,
                name,
                &self.root.target(index),
                value,
                None,
            );
        }
        Some(name)
    }

    fn has_targets(&self, site: Option<u32>) -> bool {
        match (&self.plan, site) {
            (Some(plan), Some(site)) => plan.targets(site).iter().any(|t| self.holds(t.patch)),
            _ => false,
        }
    }

    /// Whether patch `index` of the plan holds in this run.
    pub fn holds(&self, index: u32) -> bool {
        self.holding.get(index as usize).copied().unwrap_or(true)
    }

    /// The site of a parameter that [`Run::operands`] asked to replace.
    pub fn parameter_site(&self, level: usize, identity: usize) -> Option<u32> {
        let frame = self.frame(level)?;
        let indices = self.parameters.get(&identity)?;
        let (_, name) = frame
            .parameters
            .iter()
            .find(|(index, _)| indices.contains(index))?;
        self.site(level, *name)
    }

    /// A value is about to appear in the innermost scope: gives it its name.
    pub fn value_begin(&mut self, kind: ValueKind) -> Wanted {
        if let ValueKind::Op(id) = kind
            && !ops::get(id).is_some_and(|op| self.concerns(op.family))
        {
            return Wanted::default();
        }
        let Some(frame) = self.frames.last_mut() else {
            return Wanted::default();
        };
        let Some(prepared) = &frame.prepared else {
            return Wanted::default();
        };
        let name = match kind {
            ValueKind::Op(id) => ops::get(id)
                .filter(|op| !frame.past.contains(&op.family))
                .map(|op| frame.names.create(op.name)),
            ValueKind::Input(index) => prepared.inputs.get(index as usize).copied(),
            ValueKind::Output => Some(prepared.output),
        };
        let Some(name) = name else {
            return Wanted::default();
        };
        if let ValueKind::Op(id) = kind {
            self.counted(id, name);
        }
        let site = self.site(0, name);
        let wanted = Wanted {
            elements: self.recorder.is_some(),
            targets: self.has_targets(site),
            args: self
                .recorder
                .as_mut()
                .is_some_and(|recorder| !recorder.tape().knows(kind.into(), name)),
        };
        self.pending = Some(Pending {
            kind,
            name,
            site,
            args: None,
        });
        wanted
    }

    /// What the value at hand is made from; where libtorch knows it, the lines of source behind it.
    pub fn args(&mut self, elements: &[Element<'_>], mut inner: Vec<Place>) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        let mut source = match (pending.kind, self.frames.last()) {
            (ValueKind::Op(_), Some(frame)) => {
                let script = frame.scope.is_script() && self.flat.is_none();
                self.session.source(script)
            }
            _ => Source::default(),
        };
        source.frames.append(&mut inner);
        pending.args = Some(Args::new(elements, source));
    }

    /// The site of the value at hand.
    pub fn value_site(&self) -> Option<u32> {
        self.pending.as_ref()?.site
    }

    /// The value at hand, as everything downstream sees it.
    pub fn value(&mut self, elements: &[Element<'_>]) {
        let (Some(recorder), Some(pending)) = (&mut self.recorder, &mut self.pending) else {
            return;
        };
        let args = pending.args.take();
        let op = match pending.kind {
            ValueKind::Op(id) => ops::get(id),
            _ => None,
        };
        let kind = pending.kind.into();
        let target = op.map(|op| &op.schema).unwrap_or(&self.no_target);
        let mut tape = recorder.tape();
        tape.leaf(0, kind, pending.name, target, elements, args);
        if let Some(flat) = &mut self.flat {
            flat.nodes += 1;
        }
    }

    /// The operation at hand threw.
    pub fn abandon(&mut self) {
        self.pending = None;
    }

    /// The plan that [`Run::value_site`] and [`Run::parameter_site`] speak of.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// The root returned or threw: what was recorded goes into the session's graph.
    pub fn end(self) {
        let mut this = self;
        if let Some(flat) = this.flat.take() {
            return this.end_flat(&flat);
        }
        let tape = this.recorder.map(Recorder::into_tape);
        match (this.resumed, tape) {
            (false, tape) => this.session.finish(&this.root, tape),
            (true, Some(tape)) => this.session.add_part(&this.root, tape),
            (true, None) => {}
        }
    }
}
