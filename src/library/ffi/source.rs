//! Where in the user's source an operation is called. The host tells that, since only the host knows its own stack.

use std::ffi::{c_char, c_void};

use super::arguments::text;
use super::handle::{Handle, Lent, exclusive, lend};
use super::session::{gp_session, named_or_attached};
use super::slots::Kind;
use super::{Status, guard};
use graphpatch_core::error::Result;
use graphpatch_core::graph::SourceLine;

/// A list of frames that a gp_source_callback fills. Since 0.1.0.
pub struct gp_frames {
    _opaque: [u8; 0],
}

impl Handle for gp_frames {
    const NAME: &'static str = "frames";
    const KIND: Kind = Kind::Frames;
    type Value = Vec<SourceLine>;
    type Owner = Lent;
}

/// Says where in the user's source the calling thread is: one gp_frames_add for each frame, innermost last, without
/// those of libtorch and of libraries that are not the user's. It is called while an operation is about to run, perhaps
/// on several threads at once, and must not call operations itself. Nothing can take a C++ exception from it: one that
/// leaves it ends the process. Since 0.1.0.
pub type gp_source_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, frames: *mut gp_frames)>;

/// The host's function, with what it gets.
struct Host {
    callback: unsafe extern "C" fn(*mut c_void, *mut gp_frames),
    user: *mut c_void,
}

// SAFETY: the host says that the function may be called with `user` on every thread, several times at once
// (`gp_source_callback`).
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    fn ask(&self) -> Vec<SourceLine> {
        // SAFETY: gp_session_source was given a function of this type and the pointer that it takes.
        lend(Vec::new(), |frames| unsafe {
            (self.callback)(self.user, frames);
        })
    }
}

/// Has the library call `callback` with `user` when an operation or a call of a module is recorded for the first time,
/// to learn where in the source it is. NULL: no callback. `user` must stay valid until another one is set and runs that
/// began before have ended. A NULL session stands for the attached one; GP_STATUS_STATE without.
///
/// Thread: any. NULL: session, callback, user. Errors: GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `callback` and `user` as gp_source_callback says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_source(
    session: *const gp_session,
    callback: gp_source_callback,
    user: *mut c_void,
) -> Status {
    guard(|| {
        let session = named_or_attached(session)?;
        let host = callback.map(|callback| Host { callback, user });
        session.set_source(host.map(|host| Box::new(move || host.ask()) as _));
        Ok(())
    })
}

/// Adds a frame: its file, the line (0: unknown), the function, and the line's text. NULL stands for what is not known.
///
/// Thread: its own. NULL: file, function, code. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `frames` is what the callback was given; texts are NULL or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_frames_add(
    frames: *mut gp_frames,
    file: *const c_char,
    line: u32,
    function: *const c_char,
    code: *const c_char,
) -> Status {
    let known = |given: *const c_char, name| -> Result<String> {
        match given.is_null() {
            true => Ok(String::new()),
            // SAFETY: by this function's contract.
            false => unsafe { text(given, name) }.map(str::to_owned),
        }
    };
    guard(|| {
        let line = SourceLine {
            file: known(file, "file")?,
            line,
            function: known(function, "function")?,
            text: known(code, "code")?.trim().to_owned(),
        };
        exclusive(frames)?.push(line);
        Ok(())
    })
}
