//! Parameters of a run: which tensors they are, and their names where they are read.

use graphpatch_core::graph::Kind;
use graphpatch_core::path::Name;

use crate::record::{Element, Tag};
use crate::run::Run;

impl Run {
    /// Sets which tensors the root's parameters are: their identities in the root's order, 0 where there is no tensor. No other
    /// tensor may get one of these identities while the run lasts. A host may call this again in the run, where parameters
    /// become other tensors.
    pub fn set_parameters(&mut self, identities: impl Iterator<Item = usize>) {
        self.tied = None;
        for (index, identity) in identities.enumerate() {
            if identity != 0 {
                let indices = self.parameters.entry(identity).or_default();
                if !indices.contains(&(index as u32)) {
                    indices.push(index as u32);
                }
            }
        }
    }

    /// The scope at `level` is about to read these tensors. Parameters among them get their node now. Calls `replace` with the
    /// index of each parameter that has patches.
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
            let name = self.parameter(level, element);
            let here = name.is_some_and(|name| self.has_targets(self.site(level, name)));
            if here || self.is_patched_around(level, element.identity) {
                replace(index);
            }
        }
    }

    /// Whether a scope around the one at `level` has read this parameter and has patches of it, which hold for everything
    /// inside that scope.
    fn is_patched_around(&self, level: usize, identity: usize) -> bool {
        let Some(indices) = self.parameters.get(&identity) else {
            return false;
        };
        (level + 1..self.frames.len()).any(|outer| {
            let known = self.frame(outer).filter(|frame| frame.copies);
            let mut read = known.iter().flat_map(|frame| &frame.parameters);
            read.any(|(index, name)| {
                indices.contains(index) && self.has_targets(self.site(outer, *name))
            })
        })
    }

    /// The name, in the scope at `level`, of the parameter that this tensor is. Gives the parameter a node if it has none yet.
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
        let name = if own {
            name
        } else {
            frame.names().create(name)
        };
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

    /// The site of a parameter that [`Run::operands`] asked to replace. The frame is marked as one with patched copies.
    pub fn parameter_site(&mut self, level: usize, identity: usize) -> Option<u32> {
        let at = self.frames.len().checked_sub(level + 1)?;
        let frame = self.frames.get_mut(at)?;
        let indices = self.parameters.get(&identity)?;
        let (_, name) = frame
            .parameters
            .iter()
            .find(|(index, _)| indices.contains(index))?;
        frame.copies = true;
        let name = *name;
        self.site(level, name)
    }
}
