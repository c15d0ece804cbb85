//! Calls of the adapter: TorchScript's runs, and the scopes and values of all runs.

use std::sync::Arc;

use super::edge::edge;
use super::{Current, arm, with, with_current, with_run, with_scope};
use crate::held::Held;
use crate::record::{Element, Source};
use crate::run::Run;
use crate::scope::{Root, Scope};
use crate::value::{Token, ValueKind};
use crate::value_path::ValuePath;
use crate::wants::{ValueWants, Wants};
use graphpatch_core::graph::SourceLine as Line;

/// Begins a run for a call of a TorchScript root; its scope opens with [`enter_root`]. `None` if nothing is wanted of the run.
/// Roots that are called inside of it then begin no run either, until [`end_call`].
pub fn begin_call(root: Arc<Root>) -> Option<Wants> {
    let begun = Run::begin(root);
    with(|state| match begun {
        Some((run, wants)) => {
            state.level.current = Some(Current::Run(Box::new(run)));
            state.level.entered = false;
            Some(wants)
        }
        None => {
            state.level.declined += 1;
            None
        }
    })?
}

/// The call ends of a root of which nothing was wanted.
pub fn end_call() {
    decline(false);
}

/// A call of which nothing is wanted begins on this thread (`on`), or ends. TorchScript modules that are called meanwhile are parts
/// of it, also if something is wanted of runs that begin by then.
pub fn decline(on: bool) {
    with(|state| {
        let open = &mut state.level.declined;
        *open = match on {
            true => *open + 1,
            false => open.saturating_sub(1),
        };
    });
}

/// The code of a TorchScript root begins. It is the root of the run itself, or a module that is called inside of the run: as
/// the scope that the host announced by `call_next`, else as `scope`.
pub fn enter_root(scope: Arc<Scope>) -> Wants {
    let mut node = 0;
    edge(|edge| node = edge.node());
    let begun = with(|state| {
        let level = &mut state.level;
        level.current.as_ref()?;
        if level.entered {
            return Some(Err(level.called.take().unwrap_or(scope)));
        }
        level.entered = true;
        level.node = node;
        level
            .current
            .as_mut()
            .map(|current| Ok(current.run().wants()))
    });
    match begun.flatten() {
        None => Wants::NOTHING,
        Some(Err(scope)) => enter(scope).unwrap_or_default(),
        Some(Ok(wants)) => {
            arm();
            wants
        }
    }
}

/// A module is called. `None`: outside a run.
pub fn enter(scope: Arc<Scope>) -> Option<Wants> {
    let mut about = None;
    let entered = with_scope(|state| {
        let level = &mut state.level;
        if !level.entered {
            return None;
        }
        let current = level.current.as_mut()?;
        let entered = current.enter(scope);
        if entered.unknown.is_some() {
            let run = current.run();
            about = Some((run.id, run.session.clone()));
        }
        Some(entered)
    })??;
    if let (Some((event, script)), Some((id, session))) = (entered.unknown, about) {
        let source = session.source(script);
        with_run(|run| match run.id == id {
            true => run.locate(event, source),
            false => drop(source),
        });
    }
    arm();
    Some(entered.wants)
}

/// The innermost module has returned.
pub fn leave() {
    let left = with_scope(|state| {
        let level = &mut state.level;
        let current = level.current.as_mut().filter(|_| level.entered)?;
        let copies = current.leave();
        Some(copies.and_then(|frame| Some((frame, current.run().held.clone()?))))
    });
    let Some(Some(copies)) = left else { return };
    arm();
    if let Some((frame, held)) = copies {
        held.leave(frame);
    }
}

/// The lines of TorchScript source from which the innermost scope was called.
pub fn called_from(lines: Vec<Line>) {
    with_run(|run| run.called_from(lines));
}

/// Gives the thread's run an object of the adapter's to keep alive.
pub fn hold(held: Arc<dyn Held>) {
    let before = with(|state| match &mut state.level.current {
        Some(current) => current.run().held.replace(held),
        None => Some(held),
    });
    drop(before);
}

/// A value is about to appear in the innermost scope. `None`: nothing is wanted of it.
pub fn value_begin(kind: ValueKind) -> Option<(Token, ValueWants)> {
    let begun = with_current(|current| match current {
        Current::Run(run) => run.value_begin(kind),
        Current::Flat(flat) => flat.value_begin(kind),
    })??;
    if begun.0.site.is_some() && matches!(kind, ValueKind::Op(_)) {
        // This may have been the last operation that matters in the scope.
        with_scope(|_| ());
        arm();
    }
    Some(begun)
}

/// A value inside of the operation `outer` is there, see [`Run::inner`]. `None`: nothing is wanted of it.
pub fn inner(outer: &Token, which: usize, kind: Option<ValueKind>) -> Option<(Token, ValueWants)> {
    with_run(|run| run.inner(outer, which, kind)).flatten()
}

/// Compiled code has computed the value at `path`, see [`Run::tap`]. `None`: nothing is wanted of it.
pub fn tap(path: &str) -> Option<Token> {
    with_run(|run| run.tap(path)).flatten()
}

/// Compiled code has computed the value at `place`, see [`Run::computed`]. `None`: nothing is wanted of it.
pub fn computed(place: &ValuePath, id: u32) -> Option<(Token, ValueWants)> {
    with_run(|run| run.computed(place, id)).flatten()
}

/// What the value is made from, and the lines of source that called the operation, if libtorch knows them.
pub fn value_args(token: &Token, elements: &[Element<'_>], lines: Vec<Line>) {
    let asked = with_run(|run| run.source_of(token)).flatten();
    // This may call code of the user's, so the state is not borrowed.
    let source = asked.map_or_else(Source::default, |(session, script)| session.source(script));
    with_run(|run| run.args(token, elements, source, lines));
}
