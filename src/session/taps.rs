//! Values that compiled code computes. None of its operations is seen. Which values there are, and what they are called, was
//! found out by a run of the same operations one by one; the compiled code then reports each wanted value when it is computed.

use std::sync::Arc;

use graphpatch_core::path::{Name, NodePath};

use crate::run::Run;
use crate::value::{Token, ValueKind};
use crate::value_path::{InnerScope, ValuePath};
use crate::wants::ValueWants;

impl Run {
    /// The paths of the values that have appeared since the last call, one a line, counted from the root. Paths are kept from
    /// the first call on.
    pub fn named(&mut self) -> String {
        self.named.replace(String::new()).unwrap_or_default()
    }

    /// A value of the innermost scope is called `name`.
    pub(crate) fn note_name(&mut self, name: Name) {
        let Some(named) = &mut self.named else { return };
        let scopes = self.frames.iter().filter_map(|frame| frame.name);
        let names = scopes.chain([name]).map(|name| name.to_string());
        let path = NodePath {
            names: names.collect(),
            ..NodePath::default()
        };
        named.push_str(&path.to_string());
        named.push('\n');
    }

    /// The paths, in the innermost scope and below, of the values that this run's patches name, one a line, counted from that
    /// scope. `None` if a patch's path is a pattern, since any value may be meant then.
    pub fn patched(&self) -> Option<String> {
        let frame = self.frames.last().filter(|_| self.cold == 0);
        let site = frame.and_then(|frame| frame.site);
        match (&self.plan, site) {
            (Some(plan), Some(site)) => {
                let paths = plan.paths(site)?;
                Some(paths.iter().map(|path| format!("{path}\n")).collect())
            }
            _ => Some(String::new()),
        }
    }

    /// Compiled code is about to compute values of the innermost scope, which have these names there, in this order. Returns
    /// false if the names would differ, because the scope has named values before, or if the values have to be recorded.
    pub fn computes(&mut self, names: &[&str]) -> bool {
        let (recorded, site) = (
            self.recorder.is_some(),
            self.frames.last().and_then(|f| f.site),
        );
        let (Some(frame), Some(plan)) = (self.frames.last_mut(), &self.plan) else {
            return false;
        };
        let fresh = frame
            .prepared
            .clone()
            .is_some_and(|known| known.names == *frame.names());
        if recorded || self.cold > 0 || !fresh {
            return false;
        }
        for name in names.iter().map(|name| Name::parse(name)) {
            if site.is_some_and(|site| plan.concerns(site, name.family())) {
                frame.names().create_exact(name);
            }
        }
        true
    }

    /// The value at `path`, counted from the innermost scope, has been computed. `None` if no patch of this run names it.
    pub fn tap(&mut self, path: &str) -> Option<Token> {
        let (frame, plan) = (self.frames.last()?, self.plan.as_ref()?);
        let mut name = None;
        let site = path.split('.').try_fold(frame.site?, |site, text| {
            plan.child(site, *name.insert(Name::parse(text)))
        })?;
        if self.cold > 0 || !self.has_targets(Some(site)) {
            return None;
        }
        let depth = self.frames.len() as u32;
        Some(self.new_token(depth, ValueKind::Output, name?, Some(site)))
    }

    /// The result of operation number `id` at `place` has been computed. `None` if nothing is wanted of it. Its name is given, not
    /// found out, and the code enters no scope.
    pub fn computed(&mut self, place: &ValuePath, id: u32) -> Option<(Token, ValueWants)> {
        if self.cold > 0 {
            return None;
        }
        let frame = self.frames.last()?;
        let scopes = place.scopes.iter().map(|scope| scope.name);
        let child = |site, name| self.plan.as_ref()?.child(site, name);
        let site = scopes
            .chain([place.name])
            .fold(frame.site, |site, name| child(site?, name));
        let wants = ValueWants {
            elements: self.recorder.is_some(),
            targets: self.has_targets(site),
            ..ValueWants::default()
        };
        if wants == ValueWants::default() {
            return None;
        }
        let depth = self.frames.len() as u32;
        let token = self.new_token(depth, ValueKind::Op(id), place.name, site);
        if wants.elements {
            self.inside.push((token.serial, place.scopes.clone()));
        }
        Some((token, wants))
    }

    /// The scopes around a value that compiled code has computed.
    pub(crate) fn take_inside(&mut self, token: &Token) -> Option<Arc<[InnerScope]>> {
        let known = |(serial, _): &(u32, _)| *serial == token.serial;
        let at = self.inside.iter().rposition(known)?;
        Some(self.inside.swap_remove(at).1)
    }
}
