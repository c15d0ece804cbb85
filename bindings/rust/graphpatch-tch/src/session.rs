//! Sessions and the patches that they hold.

use std::ptr::null_mut;

use graphpatch_sys::{
    gp_kept_count, gp_kept_tensor, gp_patch_add, gp_patch_counts, gp_patch_enable,
    gp_patch_get_counts, gp_patch_register, gp_patch_remove, gp_session, gp_session_attach,
    gp_session_close, gp_session_graphs, gp_session_open, gp_session_record,
};
use tch::Tensor;

use crate::dlpack::Owned;
use crate::error::{Result, c_text, check};
use crate::graphs::Graphs;
use crate::spec::Spec;

/// The session that this process's runs belong to, until it is dropped.
pub struct Session(*mut gp_session);

// SAFETY: all calls may be made from any thread, says the header.
unsafe impl Send for Session {}
unsafe impl Sync for Session {}

// SAFETY, for all calls below: the session lives, texts are C strings, and results may be written.
impl Session {
    /// Opens a session and attaches it. The first time on a machine this builds the adapter for the process's libtorch, which takes
    /// about half a minute.
    pub fn attach() -> Result<Self> {
        let mut session = null_mut();
        check(unsafe { gp_session_open(&mut session) })?;
        let session = Self(session);
        check(unsafe { gp_session_attach(session.0) })?;
        Ok(session)
    }

    /// Whether runs that begin from now on are recorded.
    pub fn record(&self, on: bool) -> Result<()> {
        check(unsafe { gp_session_record(self.0, on) })
    }

    /// What was recorded so far.
    pub fn graphs(&self) -> Result<Graphs> {
        let mut graphs = null_mut();
        check(unsafe { gp_session_graphs(self.0, &mut graphs) })?;
        // SAFETY: new graphs.
        Ok(unsafe { Graphs::new(graphs) })
    }

    /// A patch from text: `linear.output[0]=zero`.
    pub fn patch(&self, patch: &str) -> Result<Patch<'_>> {
        let (mut id, patch) = (0, c_text(patch)?);
        check(unsafe { gp_patch_add(self.0, patch.as_ptr(), &mut id) })?;
        Ok(Patch { session: self, id })
    }

    /// Registers a patch that text cannot express.
    pub fn register(&self, spec: &Spec) -> Result<Patch<'_>> {
        let mut id = 0;
        check(unsafe { gp_patch_register(self.0, spec.as_ptr(), &mut id) })?;
        Ok(Patch { session: self, id })
    }

    pub(crate) fn as_ptr(&self) -> *const gp_session {
        self.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe { gp_session_close(self.0) }
    }
}

/// How often a patch was met, applied, and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub matched: u64,
    pub applied: u64,
    pub failed: u64,
}

/// A patch that holds, for runs that begin from now on, until it is dropped.
#[must_use = "the patch is taken away when it is dropped"]
pub struct Patch<'session> {
    session: &'session Session,
    id: u64,
}

impl Patch<'_> {
    /// Switches it off or on again, for runs that begin from now on.
    pub fn enable(&self, on: bool) -> Result<()> {
        check(unsafe { gp_patch_enable(self.session.0, self.id, on) })
    }

    pub fn counts(&self) -> Result<Counts> {
        let mut counts = gp_patch_counts {
            size: size_of::<gp_patch_counts>(),
            ..Default::default()
        };
        check(unsafe { gp_patch_get_counts(self.session.0, self.id, &mut counts) })?;
        Ok(Counts {
            matched: counts.matched,
            applied: counts.applied,
            failed: counts.failed,
        })
    }

    /// What a probe or record has kept, in order.
    pub fn kept(&self) -> Result<Vec<Tensor>> {
        let mut count = 0;
        check(unsafe { gp_kept_count(self.session.0, self.id, &mut count, null_mut()) })?;
        (0..count)
            .map(|index| {
                let mut out = null_mut();
                check(unsafe { gp_kept_tensor(self.session.0, self.id, index, &mut out) })?;
                // SAFETY: a new tensor.
                unsafe { Owned::new(out) }.to_tensor()
            })
            .collect()
    }
}

impl Drop for Patch<'_> {
    fn drop(&mut self) {
        // The patch exists, so this cannot fail.
        unsafe { gp_patch_remove(self.session.0, self.id) };
    }
}
