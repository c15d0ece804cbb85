//! The patches of a session, arranged by where they apply. A run looks up every node in this arrangement.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use super::target::{Target, Targets, steps};
use super::wild::Wild;
use super::{OnError, Patch};
use crate::path::{Base, Name, NodePath, base_str, family_text};

/// A node that a patch names, or a scope on the way to one.
#[derive(Debug, Default)]
struct Site {
    /// In the order in which patches named them.
    children: Vec<(Name, u32)>,
    /// The same, to look up at every node of every run.
    by_name: FxHashMap<Name, u32>,
    /// The children's names by their families, the highest number first.
    families: FxHashMap<Base, Vec<Name>>,
    targets: Vec<Target>,
}

/// An immutable arrangement; a change of patches makes a new one, and runs keep the one they began with.
#[derive(Debug)]
pub struct Plan {
    /// A number that no other plan of the process has; never 0.
    pub serial: u64,
    pub patches: Vec<Arc<Patch>>,
    pub on_error: OnError,
    /// Whether a patch holds for some runs only.
    pub conditional: bool,
    sites: Vec<Site>,
    /// Used instead of `sites` if the path of some patch is a pattern.
    wild: Option<Wild>,
}

impl Plan {
    /// The site of the root.
    pub const ROOT: u32 = 0;

    /// Patches at the same node stay in the given order.
    pub fn new(patches: Vec<Arc<Patch>>, on_error: OnError) -> Plan {
        let wild = Wild::new(&patches);
        let sites = match wild {
            Some(_) => Vec::new(),
            None => named_sites(&patches),
        };
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Plan {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            conditional: patches.iter().any(|patch| patch.is_conditional()),
            patches,
            on_error,
            sites,
            wild,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// The site of the child `name`.
    pub fn child(&self, site: u32, name: Name) -> Option<u32> {
        match &self.wild {
            Some(wild) => wild.child(site, name),
            None => self.sites.get(site as usize)?.by_name.get(&name).copied(),
        }
    }

    /// Whether a node whose name is of this [`Name::family`] can be a child of the site, or can change the number of one.
    pub fn concerns(&self, site: u32, family: Base) -> bool {
        if let Some(wild) = &self.wild {
            return wild.concerns(site, family);
        }
        let site = self.sites.get(site as usize);
        site.is_some_and(|site| site.families.contains_key(&family))
    }

    /// The highest number of a child of this family; -1 if none has a number.
    pub fn last_number(&self, site: u32, family: Base) -> i32 {
        if self.is_open(site, false) && self.concerns(site, family) {
            return i32::MAX;
        }
        let last = |names: &[Name]| names.first().map(|name| name.num);
        self.names_of(site, family, last).unwrap_or(Name::NO_NUM)
    }

    /// The lowest number above `number` of a named child of this family. Where [`Plan::is_open`], a pattern may match others.
    pub fn next_number(&self, site: u32, family: Base, number: i32) -> Option<i32> {
        self.names_of(site, family, |names| {
            let above = names.partition_point(|name| name.num > number);
            Some(names.get(above.checked_sub(1)?)?.num)
        })
    }

    /// Whether `holds` is true of all named children of this family. Where [`Plan::is_open`], a pattern may match further ones.
    /// The highest number is asked for first: numbers rise while names are given, so the first answer mostly decides.
    pub fn all_of(&self, site: u32, family: Base, holds: impl Fn(Name) -> bool) -> bool {
        self.names_of(site, family, |names| names.iter().all(|name| holds(*name)))
    }

    /// Looks at the names of the site's children that are of this family, the highest number first.
    fn names_of<T>(&self, site: u32, family: Base, look: impl FnOnce(&[Name]) -> T) -> T {
        if let Some(wild) = &self.wild {
            return look(&wild.names_of(site, family));
        }
        let site = self.sites.get(site as usize);
        let names = site.and_then(|site| site.families.get(&family));
        look(names.map_or(&[], Vec::as_slice))
    }

    /// The families of the site's named children. Where [`Plan::is_open`], a pattern may match children of further families.
    pub fn families(&self, site: u32) -> impl Iterator<Item = Base> {
        let named = self.sites.get(site as usize);
        let named = named
            .into_iter()
            .flat_map(|site| site.families.keys())
            .copied();
        let wild = self.wild.iter().flat_map(move |wild| wild.names(site));
        named.chain(wild.map(|(name, _)| name.family()))
    }

    /// The names of the site's children that have patches themselves. Where [`Plan::is_open`], a pattern may match further
    /// ones.
    pub fn patched_names(&self, site: u32) -> impl Iterator<Item = Name> {
        let patched = self.names(site).filter(|(_, patched)| *patched);
        patched.map(|(name, _)| name)
    }

    /// Whether children of the site are matched by a pattern instead of an exact name; with `last`, only patterns that patch
    /// these children themselves count.
    pub fn is_open(&self, site: u32, last: bool) -> bool {
        self.wild
            .as_ref()
            .is_some_and(|wild| wild.is_open(site, last))
    }

    /// Whether a child of the site with this name has patches itself.
    pub fn is_patched(&self, site: u32, name: Name) -> bool {
        let child = self.child(site, name);
        child.is_some_and(|child| !self.targets(child).is_empty())
    }

    /// Whether a patch may end, at any site, with a name that is one of these families as text.
    pub fn ends_with(&self, is_family: impl Fn(&str) -> bool) -> bool {
        let paths = self.patches.iter().map(|patch| &patch.patch.path);
        let mut last = paths.filter_map(|path| path.names.last());
        self.wild.as_ref().is_some_and(Wild::ends_open)
            || last.any(|name| is_family(family_text(name)))
    }

    pub fn targets(&self, site: u32) -> Targets<'_> {
        match &self.wild {
            Some(wild) => Targets::Met(wild.targets(site)),
            None => Targets::Named(
                self.sites
                    .get(site as usize)
                    .map_or(&[], |site| &site.targets),
            ),
        }
    }

    /// The paths of all patched values below the site, relative to it. `None` if the path of any patch is a pattern.
    pub fn paths(&self, site: u32) -> Option<Vec<NodePath>> {
        let mut paths = Vec::new();
        match self.wild {
            Some(_) => return None,
            None => self.add_paths(site, &NodePath::root(), &mut paths),
        }
        Some(paths)
    }

    fn add_paths(&self, site: u32, at: &NodePath, paths: &mut Vec<NodePath>) {
        let children = self.sites.get(site as usize).map(|site| &site.children);
        for (name, child) in children.into_iter().flatten() {
            let path = at.child(name.to_string());
            for target in self.targets(*child).iter() {
                let dig = target.dig.iter().map(|step| step.key.clone()).collect();
                let path = NodePath {
                    dig,
                    ..path.clone()
                };
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
            self.add_paths(*child, &path, paths);
        }
    }

    /// The names of the site's children that patches name or lead through, and whether each is patched itself. Where
    /// [`Plan::is_open`], a pattern may match further ones.
    pub fn names(&self, site: u32) -> impl Iterator<Item = (Name, bool)> {
        let children = self.sites.get(site as usize).map(|site| &site.children);
        let named = children.into_iter().flatten();
        let named = named.map(|(name, child)| (*name, !self.targets(*child).is_empty()));
        named.chain(self.wild.iter().flat_map(move |wild| wild.names(site)))
    }
}

/// The sites of patches that stand at one node each.
fn named_sites(patches: &[Arc<Patch>]) -> Vec<Site> {
    let mut sites = vec![Site::default()];
    for (index, patch) in patches.iter().enumerate() {
        let mut at = 0;
        for name in &patch.patch.path.names {
            at = child_or_new(&mut sites, at, Name::parse(name));
        }
        sites[at].targets.push(Target {
            patch: index as u32,
            dig: steps(&patch.patch.path.dig),
        });
    }
    merge_aliases(&mut sites);
    for names in sites.iter_mut().flat_map(|site| site.families.values_mut()) {
        names.sort_unstable_by_key(|name| Reverse(name.num));
    }
    sites
}

/// Patches inside of `linear_0` also hold for `linear`: that is what the first call of a module is named while it runs, since
/// nobody knows yet whether a second one follows. This is so for scopes only: a value `add_0` is not `add`.
fn merge_aliases(sites: &mut Vec<Site>) {
    let mut at = 0;
    while at < sites.len() {
        for (name, from) in sites[at].children.clone() {
            if name.num == 0 && !sites[from as usize].children.is_empty() {
                let first = Name::parse(&base_str(name.base)); // `layers_0_0` is `layers_0`
                let into = child_or_new(sites, at, first);
                merge_insides(sites, from as usize, into);
            }
        }
        at += 1;
    }
}

/// Adds to the sites below `into` what the sites below `from` have, in the order of the patches.
fn merge_insides(sites: &mut Vec<Site>, from: usize, into: usize) {
    for (name, from) in sites[from].children.clone() {
        let into = child_or_new(sites, into, name);
        let targets = sites[from as usize].targets.clone();
        sites[into].targets.extend(targets);
        sites[into].targets.sort_by_key(|target| target.patch);
        merge_insides(sites, from as usize, into);
    }
}

fn child_or_new(sites: &mut Vec<Site>, at: usize, name: Name) -> usize {
    if let Some(site) = sites[at].by_name.get(&name) {
        return *site as usize;
    }
    let new = sites.len();
    sites[at].children.push((name, new as u32));
    sites[at].by_name.insert(name, new as u32);
    let families = &mut sites[at].families;
    families.entry(name.family()).or_default().push(name);
    sites.push(Site::default());
    new
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::action::NewPatch;
    use super::*;

    pub fn plan(texts: &[&str]) -> Plan {
        let patches = texts.iter().enumerate().map(|(id, text)| {
            let new = NewPatch::from_spec(text.parse().unwrap()).unwrap();
            Arc::new(Patch::new(id as u64, new))
        });
        Plan::new(patches.collect(), OnError::Raise)
    }

    pub fn site(plan: &Plan, path: &str) -> Option<u32> {
        path.split('.')
            .try_fold(Plan::ROOT, |site, name| plan.child(site, Name::parse(name)))
    }

    /// For each name that is given, the plan is asked whether it is the last one. The cost of all these questions must grow
    /// only in proportion to their number.
    #[test]
    fn the_last_name_of_a_family_is_met_in_proportion() {
        let n = 1000;
        let texts: Vec<String> = (1..=n).map(|at| format!("add_{at}=zero")).collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        texts.extend(["mul=zero", "linear.add_5000=zero"]);
        // The same is asked of a plan that has a pattern at another place.
        for more in [None, Some("mul.*=zero")] {
            let texts: Vec<&str> = texts.iter().copied().chain(more).collect();
            let plan = plan(&texts);
            let family = Name::parse("add").family();
            let asked = std::cell::Cell::new(0);
            let is_past = |met: i32| {
                plan.all_of(Plan::ROOT, family, |name| {
                    asked.set(asked.get() + 1);
                    name.num <= met
                })
            };
            assert!((1..n).all(|met| !is_past(met)) && is_past(n));
            assert!(asked.get() <= 2 * n, "{} questions", asked.get());
            assert_eq!(plan.last_number(Plan::ROOT, family), n);
        }
    }

    /// A higher number that was given early does not end the family.
    #[test]
    fn all_names_of_a_family_are_asked_for() {
        let plan = plan(&["add_7=zero", "add=zero", "add_3=zero"]);
        let family = Name::parse("add").family();
        assert!(!plan.all_of(Plan::ROOT, family, |name| name.num == 7));
        assert!(!plan.all_of(Plan::ROOT, family, |name| name.num > Name::NO_NUM));
        assert!(plan.all_of(Plan::ROOT, family, |_| true));
        let none = Name::parse("mul").family();
        assert_eq!(plan.last_number(Plan::ROOT, none), Name::NO_NUM);
    }

    #[test]
    fn the_next_number_is_the_lowest_above() {
        let plan = plan(&["add_7=zero", "add=zero", "add_3=zero", "mul_1=zero"]);
        let family = Name::parse("add").family();
        let next = |number| plan.next_number(Plan::ROOT, family, number);
        assert_eq!(
            [-2, -1, 2, 3, 6, 7].map(next),
            [Some(-1), Some(3), Some(3), Some(7), Some(7), None]
        );
    }

    #[test]
    fn finds_targets_in_order() {
        let plan = plan(&[
            "mlp.add=zero",
            "mlp.chunk|sub_1=add:1",
            "mlp.add=add:2",
            "linear_0.output=zero",
        ]);
        let targets = plan.targets(site(&plan, "mlp.add").unwrap());
        assert_eq!(targets.iter().map(|t| t.patch).collect::<Vec<_>>(), [0, 2]);
        let chunk = plan.targets(site(&plan, "mlp.chunk").unwrap());
        assert_eq!(chunk[0].dig[0].index, Some(1));
        assert!(site(&plan, "mlp.sub").is_none());
        assert!(site(&plan, "linear.output").is_some());
        assert!(site(&plan, "linear_0.output").is_some());
        assert!(site(&plan, "linear_1").is_none());
        assert!(plan.targets(site(&plan, "mlp").unwrap()).is_empty());
    }

    #[test]
    fn a_value_has_one_name() {
        let plan = plan(&["layers_0=zero", "layers_0.x_0=zero"]);
        let layers = site(&plan, "layers").unwrap();
        assert!(plan.targets(layers).is_empty());
        assert!(site(&plan, "layers.x").is_none() && site(&plan, "layers.x_0").is_some());
    }

    #[test]
    fn a_first_call_may_have_a_number() {
        let plan = plan(&["layers_0_0.output=zero", "layers_0_0.h_1_0.x=zero"]);
        for path in ["layers_0.output", "layers_0_0.output", "layers_0.h_1.x"] {
            let targets = plan.targets(site(&plan, path).unwrap());
            assert_eq!(targets.len(), 1, "{path}");
        }
        assert!(site(&plan, "layers").is_none());
    }

    #[test]
    fn both_names_of_a_first_call_hold() {
        let plan = plan(&[
            "a_0.b_0.x=zero",
            "a.b.x=zero",
            "a.b_0.x=zero",
            "a_0.b.x=zero",
            "a_0.b.y=zero",
            "a_0=probe",
            "a=probe",
        ]);
        let patches = |path| {
            let targets = plan.targets(site(&plan, path).unwrap());
            targets.iter().map(|t| t.patch).collect::<Vec<_>>()
        };
        assert_eq!(patches("a.b.x"), [0, 1, 2, 3]);
        assert_eq!(patches("a.b.y"), [4]);
        assert_eq!(patches("a.b_0.x"), [0, 2]);
        assert_eq!(patches("a_0.b.x"), [0, 3]);
        assert_eq!(patches("a_0.b_0.x"), [0]);
        // These are values, and no value is called.
        assert_eq!(patches("a"), [6]);
        assert_eq!(patches("a_0"), [5]);
    }
}
