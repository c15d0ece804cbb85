//! Brings a session, the process's libtorch and its adapter together.

use std::sync::Arc;

use graphpatch_locks::Mutex;

use super::edge::Adapter;
use super::seam::CORE;
use super::seam_generated as raw;
use super::table::{publish, started};
use graphpatch_core::error::{Error, Result};
use graphpatch_loader as loader;
use graphpatch_session::{self as session, Session, thread};

/// Held while the adapter is started, so that one thread does it and others wait. The adapter is loaded before, without this
/// lock, since loading may include a build of half a minute and a fork should not wait for that; the loader itself lets only
/// one build run at a time.
static STARTING: Mutex<()> = Mutex::new(());

/// Whether libtorch tells the adapter of calls of TorchScript functions. Held while a session is attached or detached, so that
/// it does so whenever one is attached.
static LISTENS: Mutex<bool> = Mutex::new(true);

/// Makes `session` the one that this process's runs belong to. Loads the adapter if it is not loaded yet.
///
/// # Errors
///
/// [`Error::Torch`] without a libtorch in the process, [`Error::Adapter`] when its adapter cannot be had,
/// [`Error::State`] when another session is attached.
pub fn attach(session: &Arc<Session>) -> Result<()> {
    start()?;
    {
        let mut listens = LISTENS.lock();
        session.make_current()?;
        listen(&mut listens, true);
    }
    session.warm_devices();
    Ok(())
}

/// Detaches `session` from the process. Runs that have begun end as they began. With the last session, libtorch stops telling
/// us of its calls: from then on the program runs as if it had never had one.
pub fn detach(session: &Arc<Session>) {
    let mut listens = LISTENS.lock();
    // Sessions of Python's that were never attached need to be told of calls as well: others of them may be there.
    if session.detach() && session::attached().is_none() {
        listen(&mut listens, false);
    }
}

fn listen(listens: &mut bool, on: bool) {
    if let Some(listen) = started().and_then(|adapter| adapter.listen)
        && *listens != on
    {
        // SAFETY: a call of the adapter's table. LISTENS is held, so one thread calls it at a time.
        unsafe { listen(on.into()) };
        *listens = on;
    }
}

/// Loads the adapter for the process's libtorch, if it is not loaded yet.
///
/// # Errors
///
/// [`Error::Torch`] without a libtorch in the process, [`Error::Adapter`] when its adapter cannot be had.
pub fn start() -> Result<()> {
    if started().is_some() {
        return Ok(());
    }
    let libtorch = loader::find_loaded().ok_or_else(|| {
        Error::Torch(
            "no libtorch is loaded in this process: link or load libtorch_cpu.so before attaching"
                .into(),
        )
    })?;
    let library = loader::load(&libtorch)?;
    let _alone = STARTING.lock();
    if started().is_some() {
        return Ok(());
    }
    // SAFETY: the symbol is the adapter's entry, of this type in every adapter that was built from our sources.
    let table = unsafe {
        let entry = library
            .get::<unsafe extern "C" fn(*const raw::GpCore) -> *const raw::GpAdapter>(
                b"graphpatch_adapter_entry\0",
            )
            .map_err(|why| Error::Adapter(format!("the adapter has no entry: {why}")))?;
        entry(&raw const CORE.0).as_ref()
    };
    let Some(table) = table else {
        return Err(Error::Adapter(format!(
            "the adapter speaks another version of the seam than {}: remove it and let it be built again",
            raw::GP_SEAM_VERSION
        )));
    };
    if let Some(start) = table.start {
        // SAFETY: called under the lock, until it succeeds once; the answer is text that stays until the next call.
        let why = unsafe {
            let answer = start();
            std::slice::from_raw_parts(answer.data.cast::<u8>(), answer.size)
        };
        if !why.is_empty() {
            return Err(Error::Adapter(format!(
                "libtorch {} refused the adapter: {}",
                libtorch.version,
                String::from_utf8_lossy(why)
            )));
        }
    }
    publish(table, library);
    thread::set_edge(&Adapter);
    Ok(())
}
