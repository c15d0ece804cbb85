//! Parameters of a run: which tensors they are, and their names where they are read.

use graphpatch_core::graph::Kind;
use graphpatch_core::path::Name;

use crate::record::Element;
use crate::run::Run;

/// What an operand is for the scope that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Nothing is to be done.
    Plain,
    /// A parameter that has patches.
    Patched,
    /// A parameter that is to be recorded: [`Run::operand`] has to be called again with its value.
    Undescribed,
}

impl Run {
    /// Sets which tensors the root's parameters are: their identities in the root's order, 0 where there is no tensor. No other
    /// tensor may get one of these identities while the run lasts. A host may call this again in the run, where parameters
    /// become other tensors.
    pub fn set_parameters(&mut self, identities: impl Iterator<Item = usize>) {
        for (index, identity) in identities.enumerate() {
            if identity != 0 {
                let indices = self.parameters.entry(identity).or_default();
                if !indices.contains(&(index as u32)) {
                    indices.push(index as u32);
                }
            }
        }
    }

    /// The scope at `level` is about to read the tensor with this identity. A parameter gets its node now, for which a run that is
    /// recorded needs the tensor itself as `value`.
    pub fn operand(
        &mut self,
        level: usize,
        identity: usize,
        value: Option<&Element<'_>>,
    ) -> Operand {
        // Nearly all operands are no parameters.
        if !self.parameters.contains_key(&identity) {
            return Operand::Plain;
        }
        let level = self.reader(level, identity);
        let mut is_patched = false;
        if let Some((index, own)) = self.parameter(level, identity) {
            let frame = self.frame(level);
            let known =
                frame.and_then(|frame| frame.parameters.iter().find(|known| known.0 == index));
            let name = match (known, value) {
                (Some((_, name)), _) => *name,
                (None, None) if self.recorder.is_some() => return Operand::Undescribed,
                (None, _) => self.add_parameter(level, index, own, value),
            };
            is_patched = self.has_targets(self.site(level, name));
        }
        match is_patched || self.is_patched_around(level, identity) {
            true => Operand::Patched,
            false => Operand::Plain,
        }
    }

    /// The level of the scope that is the parameter's reader where the scope at `level` reads it: that one, or, if the parameter
    /// is not below its module, the innermost around it whose module has the parameter itself. A module may hold a parameter
    /// of a module around it, or that module, in an attribute that is not registered.
    fn reader(&self, level: usize, identity: usize) -> usize {
        let is_own = |level: &usize| matches!(self.parameter(*level, identity), Some((_, Some(_))));
        match self.parameter(level, identity) {
            Some(_) => level,
            None => (level + 1..self.frames.len()).find(is_own).unwrap_or(level),
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

    /// The parameter with this identity, if the scope at `level` may read it: its index in the root, and its name if it is the
    /// module's own.
    fn parameter(&self, level: usize, identity: usize) -> Option<(u32, Option<Name>)> {
        let indices = self.parameters.get(&identity)?;
        let prepared = self.frame(level)?.prepared.as_ref()?;
        indices.iter().find_map(|index| {
            let own = *prepared.parameters.get(index)?;
            Some((*index, own))
        })
    }

    /// Gives a node to a parameter that has none yet in the scope at `level`, and returns the node's name.
    fn add_parameter(
        &mut self,
        level: usize,
        index: u32,
        own: Option<Name>,
        value: Option<&Element<'_>>,
    ) -> Name {
        let at = self.frames.len() - level - 1;
        let frame = &mut self.frames[at];
        let name = own.unwrap_or_else(|| {
            let asked = frame.prepared.as_ref().map(|own| own.candidate(index));
            frame
                .names()
                .create(asked.unwrap_or_else(|| Name::candidate("")))
        });
        frame.parameters.push((index, name));
        if let (Some(recorder), Some(value)) = (&mut self.recorder, value) {
            recorder.tape().leaf(
                level,
                Kind::Parameter,
                name,
                &self.root.target(index),
                std::slice::from_ref(value),
                None,
            );
        }
        name
    }

    /// The site of a parameter that is [`Operand::Patched`], and the number of the scope that is its reader, which is marked as
    /// one with patched copies. `None` if only a scope around has patches of it.
    pub fn parameter_site(&mut self, level: usize, identity: usize) -> Option<(u32, u32)> {
        let level = self.reader(level, identity);
        let at = self.frames.len().checked_sub(level + 1)?;
        let frame = self.frames.get_mut(at)?;
        let indices = self.parameters.get(&identity)?;
        let (_, name) = frame
            .parameters
            .iter()
            .find(|(index, _)| indices.contains(index))?;
        frame.copies = true;
        let (name, reader) = (*name, frame.serial);
        Some((self.site(level, name)?, reader))
    }
}
