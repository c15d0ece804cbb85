//! The flat run of a thread, in a program that reports no calls of modules.

use std::sync::Arc;

use super::{Current, arm, with};
use crate::flat::{Flat, Next};
use crate::scope::Root;
use crate::wants::Wants;

/// Sets whether operations of this thread that are in no other run belong to flat runs from now on.
pub fn flat_thread(on: bool) {
    let ended = with(|state| {
        state.level.flat.on = on;
        match on {
            true => None,
            false => state.level.flat.idle.take(),
        }
    });
    if let Some(Some(flat)) = ended {
        flat.end();
    }
    arm();
}

/// Begins a flat run in place of the one before. `None` if nothing is wanted of it.
pub fn flat_begin(root: Arc<Root>) -> Option<Wants> {
    flat_end();
    let (flat, wants) = Flat::begin(root)?;
    with(|state| state.level.flat.idle = Some(Box::new(flat)));
    Some(wants)
}

/// Ends the thread's flat run, and the flat runs of suspended levels.
pub fn flat_end() {
    let ended = with(|state| {
        let outer = state.outer.iter_mut().map(|(level, _)| level);
        std::iter::once(&mut state.level)
            .chain(outer)
            .filter_map(|level| level.flat.idle.take())
            .collect::<Vec<_>>()
    });
    for flat in ended.into_iter().flatten() {
        flat.end();
    }
}

/// The flat run is about to see its next operation.
pub fn flat_next() -> Next {
    let next = with(|state| {
        let flat = state.level.flat.idle.as_mut()?;
        let (next, news) = flat.advance();
        let gone = match next {
            Next::GoOn => None,
            // The tensors' identities are not needed any more, so nothing needs to keep them.
            _ => flat.run().held.take(),
        };
        Some((next, news, flat.session(), gone))
    });
    let Some(Some((next, news, session, gone))) = next else {
        return Next::Over;
    };
    drop(gone);
    if let Some(news) = news {
        session.observe(news);
    }
    next
}

/// See [`Flat::set_root`].
pub fn flat_root(root: Arc<Root>, identities: impl Iterator<Item = usize>) {
    with(|state| {
        if let Some(flat) = &mut state.level.flat.idle {
            flat.set_root(root, identities);
        }
    });
}

/// Sets which tensors the parameters of the idle flat run's root are.
pub fn flat_parameters(identities: impl Iterator<Item = usize>) {
    with(|state| {
        if let Some(flat) = &mut state.level.flat.idle {
            flat.run().set_parameters(identities);
        }
    });
}

/// Makes the flat run the thread's run for one operation (`on`), or ends that. Returns whether the thread has a run now.
pub fn flat_now(on: bool) -> bool {
    with(|state| {
        let level = &mut state.level;
        match (on, level.current.take()) {
            (true, None) => {
                level.current = level.flat.idle.take().map(Current::Flat);
                level.entered = level.current.is_some();
            }
            (false, Some(Current::Flat(flat))) => {
                level.flat.idle = Some(flat);
                level.entered = false;
            }
            (_, other) => level.current = other,
        }
        level.current.is_some()
    })
    .unwrap_or(false)
}
