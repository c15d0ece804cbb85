//! The sites of a plan with patterns. Which nodes a pattern matches is found out as their names appear.
//!
//! A site stands for how far each patch's path has been matched on the way from the root. There are as many sites as there are
//! such states, however many nodes there are.

use std::cmp::Reverse;
use std::sync::Arc;

use graphpatch_locks::RwLock;
use rustc_hash::FxHashMap;

use super::Patch;
use super::target::{Target, steps};
use crate::path::{Base, Glob, Name, base_str};

/// Answers for names with higher numbers are not kept: a program without modules can give names without end.
const MOST_KNOWN: i32 = 4096;

/// One part of a path, as names are matched against it.
#[derive(Debug)]
enum Part {
    /// This name.
    One(Name),
    /// All names that match; every one of them begins with this text.
    Some(Glob, String),
    /// Any number of names.
    Rest,
}

/// The path of patch number `.0` has been matched up to its part number `.1`.
type Cursor = (u32, u32);

#[derive(Debug)]
struct Site {
    cursors: Vec<Cursor>,
    targets: Arc<[Target]>,
}

#[derive(Debug, Default)]
struct Met {
    sites: Vec<Arc<Site>>,
    by_cursors: FxHashMap<Vec<Cursor>, u32>,
    children: FxHashMap<(u32, Name), Option<u32>>,
    concerned: FxHashMap<(u32, Base), bool>,
    /// What [`Wild::names_of`] has found.
    names: FxHashMap<(u32, Base), Arc<[Name]>>,
}

/// All patches of a plan in which at least one path is a pattern.
#[derive(Debug)]
pub(super) struct Wild {
    paths: Vec<(Vec<Part>, Vec<super::Step>)>,
    met: RwLock<Met>,
}

impl Wild {
    /// `None` if no path is a pattern.
    pub(super) fn new(patches: &[Arc<Patch>]) -> Option<Wild> {
        let mut paths = patches.iter().map(|patch| &patch.patch.path);
        if !paths.any(|path| path.names_are_pattern()) {
            return None;
        }
        let paths = patches.iter().map(|patch| &patch.patch.path);
        let wild = Wild {
            paths: paths
                .map(|path| (parts(&path.names), steps(&path.dig)))
                .collect(),
            met: RwLock::default(),
        };
        let root = (0..wild.paths.len() as u32).map(|patch| (patch, 0));
        wild.site_of(root.collect());
        Some(wild)
    }

    /// The site of the child `name`.
    pub(super) fn child(&self, site: u32, name: Name) -> Option<u32> {
        if let Some(known) = self.met.read().children.get(&(site, name)) {
            return *known;
        }
        let cursors = self.site(site)?.cursors.clone();
        let text = name.to_string();
        let next = cursors.iter().filter_map(|(patch, at)| {
            let more = self.part(*patch, *at + 1).is_some();
            Some(match self.part(*patch, *at)? {
                Part::Rest => (*patch, *at),
                Part::One(one) => (is_called(*one, name, more)).then_some((*patch, *at + 1))?,
                Part::Some(glob, _) => glob.is_match(&text).then_some((*patch, *at + 1))?,
            })
        });
        let next: Vec<Cursor> = next.collect();
        let child = (!next.is_empty()).then(|| self.site_of(next));
        if name.num < MOST_KNOWN {
            self.met.write().children.insert((site, name), child);
        }
        child
    }

    /// Whether some patch leads to a child of the site whose name is of this family.
    pub(super) fn concerns(&self, site: u32, family: Base) -> bool {
        if let Some(known) = self.met.read().concerned.get(&(site, family)) {
            return *known;
        }
        let Some(found) = self.site(site) else {
            return false;
        };
        let text = base_str(family);
        let concerned = found.cursors.iter().any(|(patch, at)| {
            self.part(*patch, *at).is_some_and(|part| match part {
                Part::One(name) => name.family() == family,
                Part::Some(_, begin) => begin.starts_with(&*text) || text.starts_with(&**begin),
                Part::Rest => true,
            })
        });
        self.met.write().concerned.insert((site, family), concerned);
        concerned
    }

    /// The children of the site that are given by an exact name, and whether each is patched itself.
    pub(super) fn names(&self, site: u32) -> Vec<(Name, bool)> {
        let cursors = self.site(site).map(|site| site.cursors.clone());
        let name = |(patch, at): &Cursor| match self.part(*patch, *at)? {
            Part::One(name) => Some((*name, self.part(*patch, *at + 1).is_none())),
            _ => None,
        };
        cursors.iter().flatten().filter_map(name).collect()
    }

    /// Those of one family, the highest number first.
    pub(super) fn names_of(&self, site: u32, family: Base) -> Arc<[Name]> {
        if let Some(known) = self.met.read().names.get(&(site, family)) {
            return known.clone();
        }
        let names = self.names(site).into_iter().map(|(name, _)| name);
        let mut names: Vec<Name> = names.filter(|name| name.family() == family).collect();
        names.sort_unstable_by_key(|name| Reverse(name.num));
        let names: Arc<[Name]> = names.into();
        self.met.write().names.insert((site, family), names.clone());
        names
    }

    /// Whether patterns match children of the site; with `last`, only patterns that end there count.
    pub(super) fn is_open(&self, site: u32, last: bool) -> bool {
        let Some(site) = self.site(site) else {
            return false;
        };
        let open = |(patch, at): &Cursor| match self.part(*patch, *at) {
            Some(Part::Some(..)) => !last || self.part(*patch, *at + 1).is_none(),
            Some(Part::Rest) => !last,
            _ => false,
        };
        site.cursors.iter().any(open)
    }

    /// Whether a patch ends in a pattern.
    pub(super) fn ends_open(&self) -> bool {
        let last = |(parts, _): &(Vec<Part>, _)| matches!(parts.last(), Some(Part::Some(..)));
        self.paths.iter().any(last)
    }

    pub(super) fn targets(&self, site: u32) -> Arc<[Target]> {
        self.site(site)
            .map_or_else(|| Arc::from([]), |site| site.targets.clone())
    }

    fn site(&self, site: u32) -> Option<Arc<Site>> {
        self.met.read().sites.get(site as usize).cloned()
    }

    fn part(&self, patch: u32, at: u32) -> Option<&Part> {
        self.paths.get(patch as usize)?.0.get(at as usize)
    }

    /// The site for these cursors. `**` may also match no name at all, so the part after it is added.
    fn site_of(&self, mut cursors: Vec<Cursor>) -> u32 {
        let mut at = 0;
        while let Some((patch, part)) = cursors.get(at).copied() {
            if matches!(self.part(patch, part), Some(Part::Rest)) {
                cursors.push((patch, part + 1));
            }
            at += 1;
        }
        cursors.sort_unstable();
        cursors.dedup();
        let mut met = self.met.write();
        if let Some(site) = met.by_cursors.get(&cursors) {
            return *site;
        }
        let ended = cursors.iter().filter_map(|(patch, at)| {
            let (parts, dig) = self.paths.get(*patch as usize)?;
            (*at as usize == parts.len()).then(|| Target {
                patch: *patch,
                dig: dig.clone(),
            })
        });
        let targets = ended.collect();
        let site = met.sites.len() as u32;
        met.by_cursors.insert(cursors.clone(), site);
        met.sites.push(Arc::new(Site { cursors, targets }));
        site
    }
}

/// Whether a node of a run is the one that a path calls `one`. The first of several calls has no number while it lasts.
fn is_called(one: Name, name: Name, is_scope: bool) -> bool {
    one == name || (is_scope && one.num == 0 && Name::parse(&base_str(one.base)) == name)
}

fn parts(names: &[String]) -> Vec<Part> {
    let mut parts: Vec<Part> = names.iter().map(|name| part(name)).collect();
    if let Some(Part::Rest) = parts.last() {
        parts.push(part("*")); // a leaf, however deep
    }
    parts
}

fn part(name: &str) -> Part {
    let Some(special) = name.find(['*', '?', '[', '{']) else {
        return Part::One(Name::parse(name));
    };
    if name == "**" {
        return Part::Rest;
    }
    match Glob::new(name, false) {
        Ok(glob) => Part::Some(glob, name[..special].to_owned()),
        // Such a patch is refused when it is registered.
        Err(_) => Part::One(Name::parse(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::super::plan::tests::{plan, site};
    use super::*;

    fn at(plan: &Plan, path: &str) -> Vec<u32> {
        let targets = site(plan, path).map(|site| plan.targets(site));
        let targets = targets.iter().flat_map(|targets| targets.iter());
        targets.map(|t| t.patch).collect()
    }

    #[test]
    fn means_what_a_graphs_pattern_means() {
        let plan = plan(&[
            "h_*.mlp.output=zero",
            "h_1.mlp.output=add:1",
            "**.output=zero",
            "{q,k}_proj.?=zero",
            "h_0.**=zero",
        ]);
        for (path, patches) in [
            ("h_0.mlp.output", &[0, 2, 4][..]),
            ("h_1.mlp.output", &[0, 1, 2]),
            ("h_11.attn.output", &[2]),
            ("output", &[2]),
            ("k_proj.x", &[3]),
            ("k_proj.xy", &[]),
            ("h_0", &[]),
            ("h_0.x", &[4]),
            ("hh.mlp.output", &[2]),
        ] {
            assert_eq!(at(&plan, path), patches, "{path}");
        }
    }

    #[test]
    fn a_first_call_may_have_a_number() {
        let plan = plan(&["layers_0_0.mlp*.x=zero"]);
        assert_eq!(at(&plan, "layers_0.mlp.x"), [0]);
        assert_eq!(at(&plan, "layers_0_0.mlp_1.x"), [0]);
    }

    #[test]
    fn only_families_that_may_be_meant_are_counted() {
        let plan = plan(&["h_*.mlp.output=zero", "wte.output=zero"]);
        let family = |text: &str| Name::parse(text).family();
        for (text, concerned) in [("h_0", true), ("wte", true), ("add", false), ("h_x", true)] {
            assert_eq!(plan.concerns(Plan::ROOT, family(text)), concerned, "{text}");
        }
        let inner = plan.child(Plan::ROOT, Name::parse("h_3")).unwrap();
        assert!(plan.concerns(inner, family("mlp")) && !plan.concerns(inner, family("add")));
        assert!(plan.is_open(Plan::ROOT, false) && !plan.is_open(inner, false));
    }

    #[test]
    fn sites_are_states_not_nodes() {
        let plan = plan(&["add_*=zero"]);
        let first = plan.child(Plan::ROOT, Name::parse("add_1"));
        for number in 2..10_000 {
            let name = Name::parse(&format!("add_{number}"));
            assert_eq!(plan.child(Plan::ROOT, name), first);
        }
    }
}
