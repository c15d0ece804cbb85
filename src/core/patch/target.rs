//! What stands at a site of a plan: a patch, and where in a container it acts.

use std::ops::Deref;
use std::sync::Arc;

/// One step into a container: `sub_3` is index 3 of a tuple or list; any text is a key of a dict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub index: Option<u32>,
    pub key: String,
}

/// One patch at one site.
#[derive(Clone, Debug)]
pub struct Target {
    /// Index into [`super::Plan::patches`].
    pub patch: u32,
    pub dig: Vec<Step>,
}

/// The targets of one site: borrowed, or shared where a pattern stands in the plan. Nothing is copied.
pub enum Targets<'a> {
    Named(&'a [Target]),
    Met(Arc<[Target]>),
}

impl Deref for Targets<'_> {
    type Target = [Target];
    fn deref(&self) -> &[Target] {
        match self {
            Targets::Named(targets) => targets,
            Targets::Met(targets) => targets,
        }
    }
}

/// The way into a container that the keys of a path say.
pub(super) fn steps(dig: &[String]) -> Vec<Step> {
    let step = |key: &String| Step {
        index: key.strip_prefix("sub_").and_then(|n| n.parse().ok()),
        key: key.clone(),
    };
    dig.iter().map(step).collect()
}
