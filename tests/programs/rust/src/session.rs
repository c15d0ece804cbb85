//! Sessions, the graphs that they recorded and the patches that they hold.

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::ptr::null_mut;

use tch::Tensor;

use crate::dlpack::Owned;
use crate::spec::Spec;
use crate::sys::*;

/// A call that did not answer GP_STATUS_OK, and why.
#[derive(Debug)]
pub struct Error {
    pub status: gp_status,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} (status {})", self.message, self.status.0)
    }
}

impl std::error::Error for Error {}

/// Turns a status into a result. Must be called on the thread that made the call, before its next one, to get the message.
pub fn check(status: gp_status) -> Result<()> {
    if status == gp_status::GP_STATUS_OK {
        return Ok(());
    }
    // SAFETY: the text is valid until this thread's next failing call.
    let message = unsafe { CStr::from_ptr(gp_last_error()) };
    Err(Error {
        status,
        message: message.to_string_lossy().into_owned(),
    })
}

/// Converts text for C. It must not contain a NUL.
pub fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error {
        status: gp_status::GP_STATUS_ARGUMENT,
        message: format!("a NUL in {text:?}"),
    })
}

/// Text that a call hands over.
fn text(call: impl FnOnce(*mut *mut c_char) -> gp_status) -> Result<String> {
    let mut out = null_mut();
    check(call(&mut out))?;
    // SAFETY: new text, which is freed once.
    unsafe {
        let text = CStr::from_ptr(out).to_string_lossy().into_owned();
        gp_string_free(out);
        Ok(text)
    }
}

/// A session that is attached to this process until it is dropped.
pub struct Session(*mut gp_session);

// SAFETY: all calls may be made from any thread, says the header.
unsafe impl Send for Session {}
unsafe impl Sync for Session {}

impl Session {
    pub fn attach() -> Result<Self> {
        let mut session = null_mut();
        // SAFETY: `session` may be written.
        check(unsafe { gp_session_open(&mut session) })?;
        let session = Self(session);
        // SAFETY: here and below: the session lives, texts are C strings, and results may be written.
        check(unsafe { gp_session_attach(session.0) })?;
        Ok(session)
    }

    pub fn record(&self, on: bool) -> Result<()> {
        check(unsafe { gp_session_record(self.0, on) })
    }

    /// What was recorded so far: name and tree of each graph.
    pub fn graphs(&self) -> Result<Vec<(String, String)>> {
        let mut graphs = null_mut();
        check(unsafe { gp_session_graphs(self.0, &mut graphs) })?;
        let found = (0..unsafe { gp_graphs_count(graphs) })
            .map(|at| {
                let name = unsafe { CStr::from_ptr(gp_graphs_name(graphs, at)) };
                let tree =
                    text(|out| unsafe { gp_graphs_tree(graphs, at, std::ptr::null(), out) })?;
                Ok((name.to_string_lossy().into_owned(), tree))
            })
            .collect();
        unsafe { gp_graphs_free(graphs) };
        found
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

    pub fn as_ptr(&self) -> *const gp_session {
        self.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe { gp_session_close(self.0) }
    }
}

/// A patch that holds, for runs that begin from now on, until it is dropped.
pub struct Patch<'session> {
    session: &'session Session,
    id: u64,
}

impl Patch<'_> {
    /// How often it was met, applied, and failed.
    pub fn counts(&self) -> Result<(u64, u64, u64)> {
        let mut counts = gp_patch_counts {
            size: size_of::<gp_patch_counts>(),
            ..Default::default()
        };
        check(unsafe { gp_patch_get_counts(self.session.0, self.id, &mut counts) })?;
        Ok((counts.matched, counts.applied, counts.failed))
    }

    /// What a probe or record has kept.
    pub fn kept(&self) -> Result<Vec<Tensor>> {
        let mut count = 0;
        check(unsafe { gp_kept_count(self.session.0, self.id, &mut count, null_mut()) })?;
        (0..count)
            .map(|index| {
                let mut out = null_mut();
                check(unsafe { gp_kept_tensor(self.session.0, self.id, index, &mut out) })?;
                Ok(unsafe { Owned::new(out) }.to_tensor())
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
