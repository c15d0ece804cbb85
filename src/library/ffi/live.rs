//! Live control: other programs of this user look at this one, and patch it, while it runs.

use super::handle::share_or_none;
use super::session::gp_session;
use super::{Status, guard};
use crate::live;
use graphpatch_session::Session;

/// Listens for live control, by `graphpatch live` or any other client (docs/reference/live.md): a thread serves a unix socket that
/// this user alone can open. A NULL session stands for the one of `graphpatch run`, else for a new one that is attached
/// beside whatever the program attaches itself; libtorch must be loaded then. The session lives until gp_live_stop. A call
/// for the session that is served already does nothing. A forked child does not listen, until it calls this itself.
///
/// Thread: any. NULL: session. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER, GP_STATUS_STATE, GP_STATUS_FILE. Since 0.1.0.
///
/// # Safety
///
/// `session` is NULL or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_live_start(session: *const gp_session) -> Status {
    guard(|| {
        if let Some(session) = share_or_none(session)? {
            return live::start(&session);
        }
        if let Some(session) = live::known() {
            return live::start(&session);
        }
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        if let Some(session) = crate::inside::session() {
            return live::start(&session);
        }
        let session = Session::open_for_command();
        session.set_surveying(true);
        graphpatch_torch::attach(&session)?;
        live::keep(&session);
        live::start(&session)
    })
}

/// Stops listening: the thread ends soon after, and removes the patches that came by the socket. Nothing happens where
/// nobody listens.
///
/// Thread: any. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_live_stop() -> Status {
    guard(|| {
        live::stop();
        Ok(())
    })
}
