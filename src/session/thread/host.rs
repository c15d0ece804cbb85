//! Calls of a host, which say where its runs and scopes begin and end.

use std::sync::Arc;

use super::edge::{edge, ready};
use super::{Current, State, adapter, arm, is_inside, suspend, take_up, with, with_place};
use crate::run::Run;
use crate::scope::{Root, Scope};
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::wants::Wants;
use graphpatch_core::error::{Error, Result};

/// A run that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// What is wanted of its innermost scope.
    pub wants: Wants,
    /// [`graphpatch_core::patch::Plan::serial`]; 0 without patches.
    pub plan: u64,
}

/// Makes this the thread's run, and suspends the run that the thread is in, if any.
fn install(run: Run, wants: Wants) -> Opened {
    let plan = run.plan().map_or(0, |plan| plan.serial);
    if is_inside() {
        suspend();
    }
    let mut node = 0;
    edge(|edge| node = edge.node());
    with(|state| {
        state.level.current = Some(Current::Run(Box::new(run)));
        state.level.entered = true;
        state.level.node = node;
    });
    arm();
    Opened { wants, plan }
}

/// Begins a run of `root` on this thread, for `session` or the attached one. `None` if nothing is wanted of it.
///
/// # Errors
///
/// [`Error::State`] where a run is open and no session is named; [`Error::Torch`] before the adapter has started.
pub fn open_run(session: Option<&Arc<Session>>, root: &Arc<Root>) -> Result<Option<Opened>> {
    ready()?;
    if session.is_none() && is_inside() {
        return Err(Error::State("a run is already open on this thread".into()));
    }
    let begun = match session {
        Some(session) => Run::begin_for(session.clone(), root.clone()),
        None => Run::begin(root.clone()),
    };
    Ok(begun.map(|(run, wants)| install(run, wants)))
}

/// Begins, on this thread, a run that starts from the state of another run; see [`Run::resume`].
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn resume(from: &Snapshot, record: bool) -> Result<Option<Opened>> {
    ready()?;
    Ok(Run::resume(from, record).map(|(run, wants)| install(run, wants)))
}

/// Where this thread's run stands; `None` outside one.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn snapshot() -> Result<Option<Arc<Snapshot>>> {
    ready()?;
    Ok(with_place(|run| Arc::new(run.snapshot())))
}

/// See [`Run::named`]; empty outside a run.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn named() -> Result<String> {
    ready()?;
    Ok(with_place(Run::named).unwrap_or_default())
}

/// See [`Run::patched`]; empty outside a run.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn patched() -> Result<Option<String>> {
    ready()?;
    Ok(with_place(|run| run.patched()).unwrap_or_else(|| Some(String::new())))
}

/// See [`Run::computes`]; false outside a run.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn computes(names: &[&str]) -> Result<bool> {
    ready()?;
    Ok(with_place(|run| run.computes(names)).unwrap_or_default())
}

/// Ends this thread's run and the scopes that are open in it. The run that it suspended goes on.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn end_run() -> Result<()> {
    ready()?;
    let ended = with(|state| {
        let level = &mut state.level;
        let current = match level.current.take() {
            // A flat run is at work, which this call must not end.
            Some(Current::Flat(flat)) => {
                level.current = Some(Current::Flat(flat));
                return None;
            }
            other => other,
        };
        level.entered = false;
        level.called = None;
        Some((current, level.for_function))
    });
    let Some(Some((current, for_function))) = ended else {
        return Ok(());
    };
    let had = current.is_some();
    arm();
    if let Some(Current::Run(run)) = current {
        run.end();
    }
    if had && !for_function {
        take_up();
    }
    Ok(())
}

/// See [`adapter::enter`], for a host.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn open_scope(scope: &Arc<Scope>) -> Result<Option<Wants>> {
    ready()?;
    Ok(adapter::enter(scope.clone()))
}

/// See [`adapter::leave`], for a host.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn close_scope() -> Result<()> {
    ready()?;
    adapter::leave();
    Ok(())
}

/// Announces that the next call of a TorchScript module inside this thread's run is a call of `scope`. Returns how many scopes
/// are open.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn call_next(scope: &Arc<Scope>) -> Result<u32> {
    ready()?;
    let depth = with(|state| {
        let inside = state.level.current.is_some();
        state.level.called = inside.then(|| scope.clone());
        depth(state)
    });
    Ok(depth.unwrap_or(0))
}

fn depth(state: &mut State) -> u32 {
    let entered = state.level.entered;
    let current = state.level.current.as_mut().filter(|_| entered);
    current.map_or(0, |current| current.run().depth())
}

/// Leaves scopes that an exception left open, until only the first `wanted` ones are open.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn unwind(wanted: u32) -> Result<()> {
    ready()?;
    with(|state| state.level.called = None);
    while let Some(now) = with(depth)
        && now > wanted.max(1)
    {
        adapter::leave();
    }
    Ok(())
}

/// The position of a thread among runs and scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How many runs are suspended, and whether one is open.
    suspended: usize,
    open: bool,
    /// How many scopes are open in it.
    depth: u32,
    declined: u32,
}

/// The position of this thread.
pub fn position() -> Position {
    let look = |state: &mut State| Position {
        suspended: state.outer.len(),
        open: state.level.current.is_some(),
        depth: depth(state),
        declined: state.level.declined,
    };
    with(look).unwrap_or(Position {
        suspended: 0,
        open: false,
        depth: 0,
        declined: 0,
    })
}

/// Goes back to a position: ends the runs and leaves the scopes and calls that were begun since and that an exception left open.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn go_back(to: Position) -> Result<()> {
    loop {
        let now = position();
        if now.suspended <= to.suspended && (to.open || !now.open) {
            break;
        }
        end_run()?;
        if position() == now {
            break;
        }
    }
    with(|state| state.level.declined = to.declined);
    if to.open && position().depth > to.depth {
        unwind(to.depth)?;
    }
    Ok(())
}
