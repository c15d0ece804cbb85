//! The flat run of a thread: that of a program that tells of no calls of modules.

use std::sync::Arc;

use super::{Current, arm, with};
use crate::flat::{Flat, Next};
use crate::scope::Root;
use crate::wants::Wants;

/// Operations of this thread outside of other runs are in flat runs from now on, or not any more.
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

/// A flat run begins in the place of the one before. `None`: nothing is wanted of it.
pub fn flat_begin(root: Arc<Root>) -> Option<Wants> {
    flat_end();
    let (flat, wants) = Flat::begin(root)?;
    with(|state| state.level.flat.idle = Some(Box::new(flat)));
    Some(wants)
}

/// The thread's flat run ends, and those that are suspended.
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
            // Identities need not be kept any more.
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

/// Which tensors the parameters of the idle flat run's root are.
pub fn flat_parameters(identities: impl Iterator<Item = usize>) {
    with(|state| {
        if let Some(flat) = &mut state.level.flat.idle {
            flat.run().set_parameters(identities);
        }
    });
}

/// For one operation the flat run is the thread's run. False: there is none.
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
