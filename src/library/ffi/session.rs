//! gp_session: recording, patches, and the process they hold for.

use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::{answer, text, wrong};
use super::handle::{Handle, Shared, give, reference, share, share_or_none, take_share};
use super::slots::Kind;
use super::{Status, guard, string};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::OnError;
use graphpatch_session::Session;

/// A session. Opened by gp_session_open, ended by gp_session_close. All calls may be made from any thread. Since 0.1.0.
pub struct gp_session {
    _opaque: [u8; 0],
}

impl Handle for gp_session {
    const NAME: &'static str = "session";
    const KIND: Kind = Kind::Session;
    type Value = Session;
    type Owner = Shared;
}

/// The session behind a pointer; the attached one behind NULL.
pub(super) fn named_or_attached(session: *const gp_session) -> Result<Arc<Session>> {
    share_or_none(session)?
        .map(|session| Arc::clone(&session))
        .or_else(graphpatch_session::attached)
        .ok_or_else(|| Error::State("no session is attached to this process".into()))
}

/// What a patch that cannot be applied in a run does. Since 0.1.0.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum gp_on_error {
    /// Throws a c10::Error that the program's own error handling sees.
    Raise = 0,
    /// Leaves the value alone and counts the failure.
    Skip = 1,
}

/// Opens a session that records nothing and is attached to nothing. `out` receives a new session; end it with
/// gp_session_close.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_open(out: *mut *mut gp_session) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { give(out, Session::open()) })
}

/// Detaches the session and frees it. NULL is fine. Runs under way on other threads end as they began.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_session_close(session: *mut gp_session) {
    guard(|| {
        if let Some(session) = take_share(session)? {
            graphpatch_torch::detach(&session);
        }
        Ok(())
    });
}

/// Makes the session the one that this process's runs belong to. Loads the adapter for the process's libtorch, and
/// builds it first if that has never been done on this machine (about half a minute). libtorch must be loaded. Best
/// called before other threads run models: an executor that is compiling on another thread at this very moment keeps
/// its first plan.
///
/// Errors: GP_STATUS_TORCH without libtorch, GP_STATUS_ADAPTER when the adapter cannot be had, GP_STATUS_STATE when
/// another session is attached. In a program that `graphpatch run` has started, the command's session is attached
/// beside this one: it sees only the runs that this session does not use, and says so to its user.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER, GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_session_attach(session: *const gp_session) -> Status {
    guard(|| graphpatch_torch::attach(&*share(session)?))
}

/// Detaches the session from the process. It keeps its patches and graphs.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_session_detach(session: *const gp_session) -> Status {
    guard(|| {
        graphpatch_torch::detach(&*share(session)?);
        Ok(())
    })
}

/// Whether runs that begin from now on are recorded into the session's graphs. A NULL session stands for the attached one;
/// GP_STATUS_STATE without.
///
/// Thread: any. NULL: session. Errors: GP_STATUS_STATE. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_session_record(session: *const gp_session, on: bool) -> Status {
    guard(|| {
        named_or_attached(session)?.set_recording(on);
        Ok(())
    })
}

/// Whether runs that begin from now on show the inside of an operation. `operation` is "attention"; any other is an
/// error. Each call of `scaled_dot_product_attention` is then recorded as a scope with the values that the operation
/// computes on its way. A patch whose path leads inside shows the inside of the calls that it means, whatever is set here.
/// A NULL session stands for the attached one; GP_STATUS_STATE without. Off at first.
///
/// Thread: any. NULL: session. Errors: GP_STATUS_STATE, GP_STATUS_ARGUMENT. Since 0.1.0.
///
/// # Safety
///
/// `operation` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_inside(
    session: *const gp_session,
    operation: *const c_char,
    on: bool,
) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        match unsafe { text(operation, "operation") }? {
            "attention" => named_or_attached(session)?.set_inside(on),
            other => {
                let why = format!("is `{other}`: only `attention` has an inside");
                return Err(wrong("operation", why));
            }
        }
        Ok(())
    })
}

/// What patches that cannot be applied do (a gp_on_error), for runs that begin from now on. GP_ON_ERROR_RAISE at first.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_session_on_error(session: *const gp_session, on_error: u32) -> Status {
    guard(|| {
        let session = share(session)?;
        let raise = gp_on_error::Raise as u32;
        let skip = gp_on_error::Skip as u32;
        session.set_on_error(match on_error {
            value if value == raise => OnError::Raise,
            value if value == skip => OnError::Skip,
            other => {
                let why = format!("is {other}, no value of gp_on_error");
                return Err(wrong("on_error", why));
            }
        });
        Ok(())
    })
}

/// How many runs were recorded or patched so far.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_runs(session: *const gp_session, out: *mut u64) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        unsafe { answer(out, "out", reference(session)?.runs()) }
    })
}

/// Adds to what gp_session_notes says; the same text is kept once. A NULL session stands for the attached one;
/// GP_STATUS_STATE without.
///
/// Thread: any. NULL: session. Errors: GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `note` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_note(
    session: *const gp_session,
    note: *const c_char,
) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        let note = unsafe { text(note, "note") }?;
        named_or_attached(session)?.note(note);
        Ok(())
    })
}

/// Notes on the runs so far for a person, one on each line: what a frozen graph no longer shows, for example. `out`
/// receives new text; free it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_notes(
    session: *const gp_session,
    out: *mut *mut c_char,
) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        unsafe {
            let notes = reference(session)?.notes();
            string::give(out, "out", &notes.join("\n"))
        }
    })
}

/// The patches whose node no run has reached so far, one on each line, as the text that registers it: first those that were
/// removed (of many, the first hundred), then those that are registered. Empty if there are none. Ask before
/// gp_session_close, which reports nothing. `out` receives new text; free it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_missed(
    session: *const gp_session,
    out: *mut *mut c_char,
) -> Status {
    guard(|| {
        // SAFETY: by this function's contract.
        unsafe {
            let missed = reference(session)?.missed();
            string::give(out, "out", &missed.join("\n"))
        }
    })
}
