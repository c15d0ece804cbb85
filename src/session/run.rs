//! One call of a root: names every value as it appears, records it, and says which patches it meets.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::scope::{Prepared, Root, Scope};
use super::{Session, attached, ops};
use crate::graph::Kind;
use crate::patch::Plan;
use crate::path::{Base, Name, Namespace};
use crate::record::{Element, Tag, Tape};

/// What kind of value is about to appear in the innermost scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The result of operation number `.0`.
    Op(u32),
    /// The scope's argument at this index.
    Input(u32),
    Output,
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
}

/// What the run wants to know of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its elements, to record them.
    pub elements: bool,
    /// To have the targets applied that [`Run::targets`] gives.
    pub targets: bool,
}

#[derive(Debug)]
struct Frame {
    scope: Arc<Scope>,
    site: Option<u32>,
    names: Namespace,
    /// Parameters that have a node already: index in the root, name.
    parameters: SmallVec<[(u32, Name); 4]>,
    operands: bool,
}

#[derive(Debug)]
struct Pending {
    kind: ValueKind,
    name: Name,
    site: Option<u32>,
}

/// One call of a root on one thread.
#[derive(Debug)]
pub struct Run {
    pub(super) session: Arc<Session>,
    pub(super) plan: Option<Arc<Plan>>,
    root: Arc<Root>,
    tape: Option<Tape>,
    frames: Vec<Frame>,
    /// Which patches of the plan hold in this run; empty: all.
    holding: Vec<bool>,
    /// Identity of a tensor → the parameters that it is.
    parameters: FxHashMap<usize, SmallVec<[u32; 1]>>,
    pending: Option<Pending>,
    pub(super) failure: String,
    /// Patches on CUDA values that are not launched yet.
    pub(super) queue: crate::cuda::Queue,
    no_target: Arc<str>,
}

impl Run {
    /// A run of `root` for the attached session, or `None` if nothing is wanted of it.
    pub fn begin(root: Arc<Root>) -> Option<(Run, Interest)> {
        let session = attached()?;
        let number = session.next_run(&root.name);
        let tape = session.new_tape(&root.name);
        let mut plan = session.plan();
        let mut holding = Vec::new();
        if let Some(conditional) = plan.as_ref().filter(|plan| plan.conditional) {
            holding = conditional
                .patches
                .iter()
                .map(|p| p.holds(number))
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
            tape,
            frames: Vec::with_capacity(8),
            holding,
            parameters: FxHashMap::default(),
            pending: None,
            failure: String::new(),
            queue: crate::cuda::Queue::default(),
            no_target: Arc::default(),
        };
        let site = run.plan.is_some().then_some(Plan::ROOT);
        let interest = run.open(scope, site);
        Some((run, interest))
    }

    /// Whether [`Run::set_parameters`] is worth the work.
    pub fn wants_parameters(&self) -> bool {
        let patched = |plan: &Arc<Plan>| self.root.may_patch_parameter(plan);
        self.tape.is_some() || self.plan.as_ref().is_some_and(patched)
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

    fn open(&mut self, scope: Arc<Scope>, site: Option<u32>) -> Interest {
        let recording = self.tape.is_some();
        if !recording && site.is_none() {
            self.frames.push(Frame {
                scope,
                site,
                names: Namespace::new(),
                parameters: SmallVec::new(),
                operands: false,
            });
            return Interest {
                cold: true,
                ..Interest::default()
            };
        }
        let prepared = scope.prepared(&self.root.parameters);
        let patches_parameter = match (&self.plan, site) {
            (Some(plan), Some(site)) => plan
                .patched_names(site)
                .any(|name| prepared.parameters.values().any(|known| known.0 == name)),
            _ => false,
        };
        let interest = Interest {
            arm: recording || site.is_some(),
            cold: false,
            operands: recording || patches_parameter,
        };
        let names = prepared.names.clone();
        self.frames.push(Frame {
            names,
            scope,
            site,
            parameters: SmallVec::new(),
            operands: interest.operands,
        });
        interest
    }

    /// Whether a name of this family has to be counted in the innermost scope. When only patching, most do not.
    fn concerns(&self, family: Base) -> bool {
        let site = self.frames.last().and_then(|frame| frame.site);
        match (&self.tape, &self.plan, site) {
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
        if !self.concerns(scope.family()) {
            return self.open(scope, None);
        }
        let name = match self.frames.last_mut() {
            Some(frame) => frame.names.create(scope.candidate()),
            None => scope.candidate(),
        };
        let site = self.site(0, name);
        if let Some(tape) = &mut self.tape {
            tape.enter(name, &scope.class_name, &scope.module_path);
        }
        self.open(scope, site)
    }

    /// The innermost module has returned; what is wanted of the scope around it.
    pub fn leave(&mut self) -> Interest {
        if self.frames.len() > 1 {
            self.frames.pop();
            if let Some(tape) = &mut self.tape {
                tape.leave();
            }
        }
        let recording = self.tape.is_some();
        match self.frames.last() {
            Some(frame) => Interest {
                arm: recording || frame.site.is_some(),
                cold: false,
                operands: frame.operands,
            },
            None => Interest::default(),
        }
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
        let prepared: &Prepared = frame.scope.prepared(&self.root.parameters);
        let (index, (name, own)) = self
            .parameters
            .get(&element.identity)?
            .iter()
            .find_map(|index| Some((*index, *prepared.parameters.get(index)?)))?;
        if let Some((_, name)) = frame.parameters.iter().find(|known| known.0 == index) {
            return Some(*name);
        }
        let name = if own {
            name
        } else {
            frame.names.create_exact(name)
        };
        frame.parameters.push((index, name));
        if let Some(tape) = &mut self.tape {
            let value = std::slice::from_ref(element);
            tape.leaf(
                level,
                Kind::Parameter,
                name,
                &self.root.target(index),
                value,
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
        let name = match kind {
            ValueKind::Op(id) => match ops::get(id) {
                Some(op) => frame.names.create(op.name),
                None => return Wanted::default(),
            },
            ValueKind::Input(index) => {
                let prepared = frame.scope.prepared(&self.root.parameters);
                match prepared.inputs.get(index as usize) {
                    Some(name) => *name,
                    None => return Wanted::default(),
                }
            }
            ValueKind::Output => frame.scope.prepared(&self.root.parameters).output,
        };
        let site = self.site(0, name);
        let wanted = Wanted {
            elements: self.tape.is_some(),
            targets: self.has_targets(site),
        };
        self.pending = Some(Pending { kind, name, site });
        wanted
    }

    /// The site of the value at hand.
    pub fn value_site(&self) -> Option<u32> {
        self.pending.as_ref()?.site
    }

    /// The value at hand, as everything downstream sees it.
    pub fn value(&mut self, elements: &[Element<'_>]) {
        let (Some(tape), Some(pending)) = (&mut self.tape, &self.pending) else {
            return;
        };
        let op = match pending.kind {
            ValueKind::Op(id) => ops::get(id),
            _ => None,
        };
        let kind = match pending.kind {
            ValueKind::Op(_) => Kind::Op,
            ValueKind::Input(_) => Kind::Input,
            ValueKind::Output => Kind::Output,
        };
        let target = op.map(|op| &op.schema).unwrap_or(&self.no_target);
        tape.leaf(0, kind, pending.name, target, elements);
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
        self.session.finish(&self.root, self.tape);
    }
}
