//! The calls of a thread that are set aside: a program leaves them in their middle, makes others on the same thread, and goes back
//! to them later. Coroutines with a stack of their own do that (greenlets, fibers).

use std::mem::{swap, take};
use std::thread::{ThreadId, current};

use super::edge::edge;
use super::{Current, FlatSlot, Level, State, arm, with};
use graphpatch_core::error::{Error, Result};

/// The calls that were under way on a thread. When it is dropped, its runs end as they stand.
#[derive(Debug)]
pub struct Aside {
    level: Level,
    outer: Vec<(Level, u32)>,
    /// The thread's switches at that time.
    switches: u32,
    thread: ThreadId,
}

impl State {
    /// Whether no call is under way, but for the thread's flat run.
    fn is_free(&self) -> bool {
        let level = &self.level;
        self.outer.is_empty()
            && level.declined == 0
            && !matches!(level.current, Some(Current::Run(_)))
    }

    /// The flat run belongs to the thread, whichever calls are under way on it.
    fn outermost_flat(&mut self) -> &mut FlatSlot {
        match self.outer.first_mut() {
            Some((level, _)) => &mut level.flat,
            None => &mut self.level.flat,
        }
    }

    fn set_aside(&mut self) -> (Level, Vec<(Level, u32)>) {
        let flat = take(self.outermost_flat());
        let calls = (take(&mut self.level), take(&mut self.outer));
        self.level.flat = flat;
        calls
    }

    fn take_up(&mut self, aside: &mut Aside) {
        let flat = take(&mut self.level.flat);
        swap(&mut self.level, &mut aside.level);
        self.outer = take(&mut aside.outer);
        *self.outermost_flat() = flat;
    }
}

/// Sets the calls aside that are under way on this thread. `None` if there are none.
pub fn set_aside() -> Option<Aside> {
    if with(|state| state.is_free())? {
        return None;
    }
    let mut switches = 0;
    edge(|edge| switches = edge.suspend());
    let (level, outer) = with(State::set_aside)?;
    arm();
    Some(Aside {
        level,
        outer,
        switches,
        thread: current().id(),
    })
}

/// Goes on with calls that were set aside. If this fails, `aside` stays as it is.
///
/// # Errors
///
/// [`Error::State`] on another thread, and while other calls are under way on this one.
pub fn take_up_again(aside: &mut Aside) -> Result<()> {
    if aside.thread != current().id() {
        let why = "the calls were set aside on another thread: go on with them on that one";
        return Err(Error::State(why.into()));
    }
    let taken = with(|state| {
        let free = state.is_free();
        if free {
            state.take_up(aside);
        }
        free
    });
    if taken != Some(true) {
        let why = "calls are under way on this thread: set them aside first";
        return Err(Error::State(why.into()));
    }
    edge(|edge| edge.resume(aside.switches));
    Ok(())
}

impl Drop for Aside {
    fn drop(&mut self) {
        let outer = take(&mut self.outer).into_iter().map(|(level, _)| level);
        let levels = std::iter::once(take(&mut self.level)).chain(outer.rev());
        for level in levels {
            if let Some(Current::Run(run)) = level.current {
                run.end();
            }
        }
    }
}
