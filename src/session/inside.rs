//! The inside of an operation: values on the way to its result, which the adapter computes beside it. They are recorded in a
//! scope that stands in the operation's place, and patched at their own places.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use graphpatch_core::graph::inside::{ATTENTION_VALUES, leads_inside};
use graphpatch_core::path::Name;
use graphpatch_locks::Lazy;

use crate::ops::{self, Op};
use crate::record::Source;
use crate::run::Run;
use crate::session::Session;
use crate::value::{Token, ValueKind};
use crate::value_path::InnerScope;
use crate::wants::ValueWants;

static NAMES: Lazy<[Name; ATTENTION_VALUES.len()]> =
    Lazy::new(|| ATTENTION_VALUES.map(Name::candidate));

impl Session {
    /// Whether runs that begin from now on show the inside of attention. Where a patch's path leads there, it is shown anyway.
    pub fn set_inside(&self, on: bool) {
        self.inside.store(on, Ordering::Relaxed);
    }
}

impl Run {
    /// Whether the inside of this operation is wanted, and whether patches stand there.
    pub(crate) fn opens(&self, op: &Op, site: Option<u32>) -> (bool, bool) {
        if !op.has_inside {
            return (false, false);
        }
        let patched = site.is_some_and(|site| NAMES.iter().any(|name| self.asks(site, *name)));
        let shown = self.opened.always && self.recorder.is_some();
        (patched || shown, patched)
    }

    /// Whether a patch of the value `name` inside of the operation at `site` makes its inside be shown.
    fn asks(&self, site: u32, name: Name) -> bool {
        let Some(plan) = &self.plan else { return false };
        let Some(inner) = plan.child(site, name) else {
            return false;
        };
        let leads = |patch: u32| {
            let patch = plan.patches.get(patch as usize);
            self.opened.always || patch.is_some_and(|patch| leads_inside(&patch.patch.path))
        };
        let targets = plan.targets(inner);
        targets
            .iter()
            .any(|target| self.holds(target.patch) && leads(target.patch))
    }

    /// Value number `which` inside of the operation `outer` is there. `kind` is `None` where the inside cannot be computed: then
    /// only its patches are of interest, and the operation is recorded as what it is. `None` if nothing is wanted of the value.
    pub fn inner(
        &mut self,
        outer: &Token,
        which: usize,
        kind: Option<ValueKind>,
    ) -> Option<(Token, ValueWants)> {
        let name = NAMES.get(which).copied()?;
        let child = |site| self.plan.as_ref()?.child(site, name);
        let site = self.value_site(outer).and_then(child);
        let wants = ValueWants {
            elements: self.recorder.is_some() && kind.is_some(),
            targets: self.has_targets(site),
            args: self.recorder.is_some() && !matches!(kind, None | Some(ValueKind::Output)),
            ..ValueWants::default()
        };
        if wants == ValueWants::default() {
            return None;
        }
        let kind = kind.unwrap_or(ValueKind::Output);
        let token = self.new_token(outer.depth, kind, name, site);
        if wants.elements {
            self.open_operation(outer, token.serial);
        }
        Some((token, wants))
    }

    /// The operation is recorded as a scope, in which the value with this serial number stands.
    fn open_operation(&mut self, outer: &Token, value: u32) {
        if !self.opened.serials.contains(&outer.serial) {
            self.opened.serials.push(outer.serial);
            self.opened.source = self.take_args(outer).map(|args| args.source);
        }
        let class_name = match outer.kind {
            ValueKind::Op(id) => ops::get(id).map(|op| op.schema.clone()),
            _ => None,
        };
        let scope = InnerScope {
            name: outer.name,
            class_name: class_name.unwrap_or_default(),
            module_path: Arc::default(),
        };
        self.inside.push((value, Arc::from([scope])));
    }

    /// The place that the scope around the next value was called from, once for each operation.
    pub(crate) fn take_source(&mut self) -> Source {
        self.opened.source.take().unwrap_or_default()
    }

    /// Whether the operation has been recorded as a scope. It is forgotten then.
    pub(crate) fn is_opened(&mut self, token: &Token) -> bool {
        let opened = &mut self.opened.serials;
        let known = opened.iter().position(|serial| *serial == token.serial);
        known.map(|at| opened.swap_remove(at)).is_some()
    }
}
