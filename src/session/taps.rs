//! Values that compiled code computes. None of its operations is seen: which values there are, and under which names, was
//! found out by a run of the same operations one by one, and the code says of each that is wanted when it is there.

use graphpatch_core::path::{Name, NodePath};

use crate::run::Run;
use crate::value::{Token, ValueKind};

impl Run {
    /// The paths of the values that have appeared since the last call, each on a line, and counted from the root. The
    /// first call begins to keep them.
    pub fn named(&mut self) -> String {
        self.named.replace(String::new()).unwrap_or_default()
    }

    /// A value of the innermost scope is called `name`.
    pub(crate) fn tell_name(&mut self, name: Name) {
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

    /// The paths of what patches of this run name in the innermost scope and below, each on a line, and counted from that
    /// scope.
    pub fn patched(&self) -> String {
        let site = self.frames.last().and_then(|frame| frame.site);
        match (&self.plan, site) {
            (Some(plan), Some(site)) => plan.paths(site).iter().map(|p| format!("{p}\n")).collect(),
            _ => String::new(),
        }
    }

    /// Compiled code is about to compute values of the innermost scope, which have these names there, in this order.
    /// False where they would get other ones, as the scope has named values before, or where they have to be seen.
    pub fn computes(&mut self, names: &[&str]) -> bool {
        let (recorded, site) = (self.recorder.is_some(), self.frames.last().and_then(|f| f.site));
        let (Some(frame), Some(plan)) = (self.frames.last_mut(), &self.plan) else {
            return false;
        };
        let fresh = frame.prepared.as_ref().is_some_and(|known| known.names == frame.names);
        if recorded || self.cold > 0 || !fresh {
            return false;
        }
        for name in names.iter().map(|name| Name::parse(name)) {
            if site.is_some_and(|site| plan.concerns(site, name.family())) {
                frame.names.create_exact(name);
            }
        }
        true
    }

    /// The value at `path`, counted from the innermost scope, is there. `None`: no patch of this run names it.
    pub fn tap(&mut self, path: &str) -> Option<Token> {
        let (frame, plan) = (self.frames.last()?, self.plan.as_ref()?);
        let mut name = None;
        let site = path.split('.').try_fold(frame.site?, |site, text| {
            plan.child(site, *name.insert(Name::parse(text)))
        })?;
        if self.cold > 0 || !self.has_targets(Some(site)) {
            return None;
        }
        self.values += 1;
        Some(Token {
            run: self.id,
            serial: self.values,
            depth: self.frames.len() as u32,
            kind: ValueKind::Output,
            name: name?,
            site: Some(site),
        })
    }
}
