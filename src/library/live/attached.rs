//! How a process begins that `graphpatch attach` has had load the library: a thread of the program's is borrowed for the one
//! call of [`graphpatch_attach_begin`], and all else is done by a thread of ours.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::OnError;
use graphpatch_loader::{imports, is_disabled, message, prefer_adapter};
use graphpatch_protocol::attach::{Attach, Attached, DONE, FAILED};
use graphpatch_session::Session;

use super::{keep, known, python, quiet, start_in};
use crate::{fork, inside};

/// Called by `graphpatch attach` on a borrowed thread: has a thread of ours do what the request says, and returns at once.
///
/// # Safety
///
/// `request` is a text that ends with a zero and stays during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphpatch_attach_begin(request: *const c_char) -> u64 {
    let begin = || {
        // SAFETY: by this function's contract.
        let text = unsafe { CStr::from_ptr(request) }.to_bytes().to_vec();
        quiet::spawn(move || drop(catch_unwind(AssertUnwindSafe(|| run(&text))))).is_ok()
    };
    match catch_unwind(AssertUnwindSafe(begin)) {
        Ok(true) => DONE,
        _ => FAILED,
    }
}

fn run(text: &[u8]) {
    // A command of another version: it waits for the answer in vain, and says so.
    let Ok(request) = serde_json::from_slice::<Attach>(text) else {
        return;
    };
    let mut answer = Attached {
        tells_of_runs: imports::has_python() || imports::tells_of_runs(),
        ..Attached::default()
    };
    let begun = catch_unwind(AssertUnwindSafe(|| begin(&request)));
    if let Err(why) =
        begun.unwrap_or_else(|_| Err(Error::Internal("a panic while attaching".into())))
    {
        answer.error = Some(why.to_string());
    }
    let listens = answer.error.is_none();
    // If the command has gone, nobody waits for the answer.
    let then = move |why| {
        let answer = Attached {
            python: why,
            ..answer
        };
        let _ = answer.save(&request.answer);
    };
    match (listens, request.python.clone()) {
        (true, Some(file)) => python::begin(&file, &request.library, &request.sockets, then),
        _ => then(None),
    }
}

fn begin(request: &Attach) -> Result<()> {
    if is_disabled() {
        return Err(Error::State(
            "its environment has GRAPHPATCH_DISABLE=1".into(),
        ));
    }
    fork::install();
    if known().is_none() {
        message::silence();
    }
    let session = session(request)?;
    start_in(&session, Some(&request.sockets))
}

/// The session that lasts, or a new one.
fn session(request: &Attach) -> Result<Arc<Session>> {
    if let Some(session) = known().or_else(inside::session) {
        return Ok(session);
    }
    prefer_adapter(&request.adapter);
    let session = Session::open_for_command();
    session.set_on_error(OnError::Skip);
    session.set_surveying(true);
    graphpatch_torch::attach(&session)?;
    keep(&session);
    Ok(session)
}
