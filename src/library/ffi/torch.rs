//! The adapter for the process's libtorch, without a session.

use super::{Status, guard};
use graphpatch_torch as torch;

/// Loads the adapter for the process's libtorch, as gp_session_attach does, without attaching a session: a session that
/// is given to gp_run_open needs no more.
///
/// Thread: any. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_torch_load() -> Status {
    guard(torch::start)
}
