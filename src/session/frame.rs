//! One open scope of a run.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ops;
use crate::scope::{Prepared, Root, Scope};
use crate::wants::Wants;
use graphpatch_core::patch::Plan;
use graphpatch_core::path::{Base, Name, Namespace};

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// A number that no other frame of the run has.
    pub(crate) serial: u32,
    /// The name of the call; `None` for the root, and for a call of which no patch or recording needs the name.
    pub(crate) name: Option<Name>,
    pub(crate) scope: Arc<Scope>,
    /// None in a scope of which nothing is wanted.
    pub(crate) prepared: Option<Arc<Prepared>>,
    /// See [`Scope::base`].
    pub(crate) base: Arc<str>,
    pub(crate) site: Option<u32>,
    names: Namespace,
    quiet: SmallVec<[Quiet; 2]>,
    /// Parameters that have a node already: index in the root, name.
    pub(crate) parameters: SmallVec<[(u32, Name); 4]>,
    /// Whether patches of the scope may name a parameter.
    pub(crate) patches_parameters: bool,
    /// What is wanted of the scope, as long as neither the root's parameters nor the recording change.
    pub(crate) wants: Wants,
    /// Bits of the families of operations whose names have to be counted, see [`family_bit`].
    pub(crate) families: u64,
    /// The same for the families of the scopes that are called in it.
    pub(crate) scopes: u64,
    /// The tape's event with which the scope begins.
    pub(crate) event: Option<usize>,
    /// Whether patched copies of parameters were made for it.
    pub(crate) copies: bool,
    /// Families of operations' names that need not be counted any more, since all names in them that patches use have been
    /// given; see also [`crate::flat::Flat`].
    pub(crate) past: SmallVec<[Base; 2]>,
}

/// Operations of one name that no patch of the scope can mean. They are only counted, and named when a name is asked for.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    base: Base,
    /// How many names from the first on no patch uses, and how many of them have been given.
    free: u32,
    given: u32,
}

impl Quiet {
    /// In how many names of operations a scope looks ahead.
    const MOST_NAMES: usize = 8;
    /// How far it looks ahead.
    const FURTHEST: u32 = 1 << 20;
}

/// One of 64 bits for a [`Name::family`]. If a scope's bits do not have the bit of an operation, no patch of the scope needs to
/// know of that operation.
pub fn family_bit(family: Base) -> u64 {
    1 << (family % 64)
}

impl Frame {
    /// A call of `scope` as `name`, at `site` among the patches. Only a frame with `wanted` gets its scope's names.
    pub(crate) fn new(
        name: Option<Name>,
        scope: Arc<Scope>,
        site: Option<u32>,
        root: &Root,
        outer: &Arc<str>,
        wanted: bool,
    ) -> Frame {
        let base = scope.base(outer);
        let prepared = wanted.then(|| scope.prepared(root, &base));
        Frame {
            serial: 0,
            name,
            names: match &prepared {
                Some(prepared) => prepared.names.clone(),
                None => Namespace::new(),
            },
            quiet: SmallVec::new(),
            prepared,
            base,
            site,
            parameters: SmallVec::new(),
            patches_parameters: false,
            wants: Wants::NOTHING,
            families: 0,
            scopes: 0,
            event: None,
            copies: false,
            past: SmallVec::new(),
            scope,
        }
    }

    /// A key that is the same for every call of the scope. The frame keeps the scope alive, so its address is not used again.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.scope).addr()
    }

    /// The names given in the scope so far.
    pub(crate) fn names(&mut self) -> &mut Namespace {
        for quiet in self.quiet.drain(..) {
            self.names.skip(quiet.base, quiet.given);
        }
        &mut self.names
    }

    /// Whether the next name for `base` is one that no patch uses. It is given then.
    pub(crate) fn passes(&mut self, base: Base) -> bool {
        let quiet = self.quiet.iter_mut().find(|quiet| quiet.base == base);
        let Some(quiet) = quiet.filter(|quiet| quiet.given < quiet.free) else {
            return false;
        };
        quiet.given += 1;
        true
    }

    /// An operation has got the name `given` in a run that is not recorded: looks for the next one of that base that a patch uses.
    pub(crate) fn look_ahead(&mut self, plan: &Plan, family: Base, given: Name) {
        let Some(site) = self.site else { return };
        // Other names of the family would count on from other numbers; and nothing follows a single operation.
        let room = self.quiet.len() < Quiet::MOST_NAMES;
        if family != given.base || given.num <= 0 || !room || plan.is_open(site, false) {
            return;
        }
        if self.names().rises_from(given.base) == Some(given.num) {
            let next = plan.next_number(site, family, given.num);
            let free = next.map_or(u32::MAX, |next| next.abs_diff(given.num) - 1);
            self.quiet.push(Quiet {
                base: given.base,
                free: free.min(Quiet::FURTHEST),
                given: 0,
            });
        }
    }

    /// Finds out what is wanted of the scope, under these patches.
    pub(crate) fn look(&mut self, plan: Option<&Plan>, record: bool) {
        let Some(prepared) = self.prepared.clone() else {
            self.wants = Wants::NOTHING;
            return;
        };
        let (mut inputs, mut output, mut parameters) = (record, record, false);
        self.scopes = 0;
        let operations = self.look_for_operations(plan, record);
        if let (Some(plan), Some(site)) = (plan, self.site) {
            for name in plan.patched_names(site) {
                inputs |= prepared.inputs.contains(&name);
                output |= prepared.output == name;
                parameters = parameters || prepared.may_be_parameter(name);
            }
            if plan.is_open(site, false) {
                let mut given = prepared.inputs.iter();
                inputs = inputs || given.any(|name| plan.is_patched(site, *name));
                output = output || plan.is_patched(site, prepared.output);
                parameters = parameters || plan.is_open(site, true);
            }
        }
        self.patches_parameters = parameters;
        parameters |= record && !prepared.parameters.is_empty();
        output |= parameters; // the scope may return one
        if parameters {
            self.scopes = u64::MAX; // the scopes that are called may be given patched parameters
        }
        let visible = !self.scope.opaque;
        self.wants = Wants::new(Wants::INSIDE)
            .with(Wants::INPUTS, inputs)
            .with(Wants::OUTPUT, output)
            .with(Wants::RECORD, record)
            .with(Wants::OPERANDS, visible && parameters)
            .with(Wants::OPERATIONS, visible && (parameters || operations))
            .at(self.site);
    }

    /// Finds out which names of operations and scopes have to be counted, and returns whether there are any of operations.
    fn look_for_operations(&mut self, plan: Option<&Plan>, record: bool) -> bool {
        self.families = if record { u64::MAX } else { 0 };
        self.scopes |= self.families;
        let mut operations = record;
        if let (Some(plan), Some(site)) = (plan, self.site) {
            for family in plan.families(site) {
                self.scopes |= family_bit(family);
                if self.past.contains(&family) {
                    continue;
                }
                operations = operations || ops::is_family(family);
                self.families |= family_bit(family);
            }
            if plan.is_open(site, false) {
                operations = true;
                self.families = u64::MAX;
                self.scopes = u64::MAX;
            }
        }
        operations
    }

    /// Called when a name of this family that patches use has been given in a run that is not recorded. If it was the last such
    /// name, no further operation of the family can be patched, so these are not counted any more.
    pub(crate) fn met(&mut self, plan: &Plan, family: Base) {
        let Some(site) = self.site else { return };
        if plan.is_open(site, false) {
            return;
        }
        let names = self.names();
        if !plan.all_of(site, family, |name| names.is_used(name)) {
            return;
        }
        self.past.push(family);
        let operations = self.look_for_operations(Some(plan), false);
        if !operations && !self.wants.has(Wants::OPERANDS) {
            self.wants = self.wants.without(Wants::OPERATIONS);
        }
    }

    /// Gives a name to the parameters that became known after this scope was entered.
    pub(crate) fn learn(&mut self, root: &Root) {
        let Some(old) = self.prepared.clone() else {
            return;
        };
        let new = self.scope.prepared(root, &self.base);
        let mut missing: Vec<(u32, Option<Name>)> = new
            .parameters
            .iter()
            .filter(|(index, _)| !old.parameters.contains_key(index))
            .map(|(index, own)| (*index, *own))
            .collect();
        if missing.is_empty() {
            return;
        }
        missing.sort_unstable_by_key(|(index, _)| *index);
        let mut parameters = old.parameters.clone();
        for (index, own) in missing {
            parameters.insert(index, own.map(|name| self.names().create(name)));
        }
        self.prepared = Some(Arc::new(old.with_parameters(parameters, &new)));
    }
}
