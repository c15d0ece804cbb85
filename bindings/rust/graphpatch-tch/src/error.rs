//! Statuses of calls as errors, and text in both directions.

use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

use graphpatch_sys::{gp_last_error, gp_status, gp_string_free};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of libgraphpatch that did not answer GP_STATUS_OK, and why.
    #[error("{message}")]
    Call { status: gp_status, message: String },
    /// What libtorch says. A patch that cannot be applied is such an error of the model's own call.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The status, where a call of libgraphpatch has failed.
    pub fn status(&self) -> Option<gp_status> {
        match self {
            Error::Call { status, .. } => Some(*status),
            Error::Torch(_) => None,
        }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Error::Call {
            status: gp_status::GP_STATUS_ARGUMENT,
            message: message.into(),
        }
    }
}

/// Turns a status into a result. To be called on the thread that made the call, before its next one: the message is the thread's.
pub(crate) fn check(status: gp_status) -> Result<()> {
    if status == gp_status::GP_STATUS_OK {
        return Ok(());
    }
    // SAFETY: the text is valid until this thread's next failing call.
    let message = unsafe { CStr::from_ptr(gp_last_error()) };
    Err(Error::Call {
        status,
        message: message.to_string_lossy().into_owned(),
    })
}

/// Text for C, which cannot contain a NUL.
pub(crate) fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::argument(format!("there is a NUL in {text:?}")))
}

/// Text that a call hands over.
pub(crate) fn text(call: impl FnOnce(*mut *mut c_char) -> gp_status) -> Result<String> {
    let mut out = null_mut();
    check(call(&mut out))?;
    // SAFETY: new text, which is freed once.
    unsafe {
        let text = CStr::from_ptr(out).to_string_lossy().into_owned();
        gp_string_free(out);
        Ok(text)
    }
}
