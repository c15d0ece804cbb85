//! The values of a run. A value gets its name when it is about to appear, and is recorded when it exists.

use graphpatch_core::graph::{Kind, SourceLine as Line};
use graphpatch_core::path::Name;

use crate::ops;
use crate::record::{Args, Element, Source};
use crate::run::Run;
use crate::session::Session;
use crate::wants::ValueWants;

use std::sync::Arc;

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

/// A value that has begun, for the calls that follow until it exists or is abandoned. What happens in between has tokens of its
/// own: an operation may call modules, and a function of the user's may run models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// `Run::id`.
    pub run: u64,
    /// A number that no other value of the run has.
    pub serial: u32,
    /// How many scopes were open.
    pub depth: u32,
    pub kind: ValueKind,
    pub name: Name,
    /// The value's site in the plan.
    pub site: Option<u32>,
}

impl Run {
    /// A value is about to appear in the innermost scope, and gets its name here. `None` if nothing is wanted of it.
    pub fn value_begin(&mut self, kind: ValueKind) -> Option<(Token, ValueWants)> {
        if self.cold > 0 {
            return None;
        }
        let operation = match kind {
            ValueKind::Op(id) => Some(ops::get(id)?),
            _ => None,
        };
        // Where nothing but patches wants to know of operations, most only have to be counted.
        let counts = self.recorder.is_none() && self.times.is_none() && self.named.is_none();
        if let Some(op) = operation
            && (counts && self.frames.last_mut()?.passes(op.name.base) || !self.concerns(op.family))
        {
            return None;
        }
        let frame = self.frames.last_mut()?;
        let prepared = frame.prepared.as_deref()?;
        let name = match (kind, operation) {
            (ValueKind::Input(index), _) => prepared.inputs.get(index as usize).copied()?,
            (_, None) => prepared.output,
            (_, Some(op)) => frame.names().create(op.name),
        };
        self.note_name(name);
        let site = self.site(0, name);
        if let (Some(operation), Some(plan), None) = (operation, &self.plan, &self.recorder)
            && let Some(frame) = self.frames.last_mut()
        {
            if site.is_some() {
                frame.met(plan, operation.family);
            }
            if counts {
                frame.look_ahead(plan, operation.family, name);
            }
        }
        let (inside, inside_targets) = operation.map_or((false, false), |op| self.opens(op, site));
        let wants = ValueWants {
            elements: self.recorder.is_some(),
            targets: self.has_targets(site),
            args: self.recorder.as_mut().is_some_and(|recorder| {
                let mut tape = recorder.tape();
                !match inside {
                    true => tape.knows_scope(name),
                    false => tape.knows(kind.into(), name),
                }
            }),
            inside,
            inside_targets,
        };
        let token = self.new_token(self.frames.len() as u32, kind, name, site);
        if let (Some(times), ValueKind::Op(_)) = (&self.times, kind) {
            times.lock().operation(token.serial);
        }
        Some((token, wants))
    }

    /// The token of this run's next value.
    pub(crate) fn new_token(
        &mut self,
        depth: u32,
        kind: ValueKind,
        name: Name,
        site: Option<u32>,
    ) -> Token {
        self.values += 1;
        Token {
            run: self.id,
            serial: self.values,
            depth,
            kind,
            name,
            site,
        }
    }

    /// Whether the value belongs to this run, in a scope that is still open.
    fn has(&self, token: &Token) -> bool {
        token.run == self.id && (1..=self.frames.len()).contains(&(token.depth as usize))
    }

    /// The session that says where in the user's source an operation is called, and whether TorchScript's own lines tell more.
    /// `None` if the value is not the result of an operation.
    pub(crate) fn source_of(&self, token: &Token) -> Option<(Arc<Session>, bool)> {
        let frame = self.frames.get(token.depth.checked_sub(1)? as usize)?;
        let operation = self.has(token) && matches!(token.kind, ValueKind::Op(_));
        operation.then(|| {
            let script = frame.scope.is_script() && self.modules;
            (self.session.clone(), script)
        })
    }

    /// What the value is made from, and the lines of source that called the operation, if libtorch knows them.
    pub fn args(
        &mut self,
        token: &Token,
        elements: &[Element<'_>],
        mut source: Source,
        mut inner: Vec<Line>,
    ) {
        if self.has(token) {
            source.frames.append(&mut inner);
            self.made_from
                .push((token.serial, Args::new(elements, source)));
        }
    }

    pub(crate) fn take_args(&mut self, token: &Token) -> Option<Args> {
        let at = self
            .made_from
            .iter()
            .rposition(|(serial, _)| *serial == token.serial)?;
        Some(self.made_from.swap_remove(at).1)
    }

    /// The value exists, as everything after it will see it.
    pub fn value(&mut self, token: &Token, elements: &[Element<'_>]) {
        if !self.has(token) {
            return;
        }
        let args = self.take_args(token);
        let inside = self.take_inside(token).unwrap_or_default();
        let opened = self.is_opened(token); // then its scope has an output
        let mut source = match inside.is_empty() {
            true => Source::default(),
            false => self.take_source(),
        };
        let level = self.frames.len() - token.depth as usize;
        let operation = match token.kind {
            ValueKind::Op(id) => ops::get(id),
            _ => None,
        };
        let target = operation.map_or(&self.no_target, |op| &op.schema);
        if let Some(times) = &self.times {
            let mut times = times.lock();
            times.returned(token.serial, token.depth, token.name, target);
            for text in self.patches_at(token.site) {
                times.patched(token.depth, token.name, text);
            }
        }
        if let Some(recorder) = self.recorder.as_mut().filter(|_| !opened) {
            let mut tape = recorder.tape();
            for scope in &*inside {
                let source = std::mem::take(&mut source);
                tape.enter(scope.name, &scope.class_name, &scope.module_path, source);
            }
            tape.leaf(level, token.kind.into(), token.name, target, elements, args);
            for _ in &*inside {
                tape.leave();
            }
            self.nodes += 1;
        }
    }

    /// The operation threw: its node is dropped.
    pub fn abandon(&mut self, token: &Token) {
        if self.has(token) {
            self.take_args(token);
            self.take_inside(token);
            self.is_opened(token);
            if let Some(times) = &self.times {
                times.lock().take(token.serial);
            }
        }
    }

    /// The texts of the patches that hold at this site.
    fn patches_at(&self, site: Option<u32>) -> impl Iterator<Item = &str> {
        let plan = self.plan.as_deref().zip(site);
        let targets = plan.map(|(plan, site)| plan.targets(site));
        let targets = targets.iter().flat_map(|targets| targets.iter());
        let numbers = targets.map(|target| target.patch);
        let held: Vec<u32> = numbers.filter(|patch| self.holds(*patch)).collect();
        held.into_iter().filter_map(|patch| {
            let patch = self.plan.as_ref()?.patches.get(patch as usize)?;
            Some(&*patch.text)
        })
    }

    /// The value's site in the plan, if the value belongs to this run.
    pub fn value_site(&self, token: &Token) -> Option<u32> {
        token.site.filter(|_| token.run == self.id)
    }
}
