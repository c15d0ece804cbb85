//! The plan that runs get which begin now, and whether it is out of date.

use std::sync::Arc;

use graphpatch_core::patch::Plan;

/// The patches of runs that begin now, arranged by where they apply.
#[derive(Default)]
pub(crate) struct Arranged {
    pub(crate) plan: Option<Arc<Plan>>,
    /// Whether patches have changed since.
    pub(crate) stale: bool,
    /// Whether a patch is on.
    pub(crate) any: bool,
}
