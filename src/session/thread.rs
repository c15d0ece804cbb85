//! The state of a thread: which run is open on it and in which scope it stands, what is suspended meanwhile, and the
//! flat run that it may have beside. It has one owner, this file; hosts and the adapter change it by calls.
//!
//! Nothing is borrowed while code of the user's may run: a callback, a finalizer or a destructor that runs a model finds
//! the thread as it is, and leaves it so. A call that comes while the state is borrowed is refused; none does.

mod adapter;
mod edge;
mod flat;
mod host;
mod shown;

use std::cell::RefCell;
use std::sync::Arc;

pub use adapter::{
    begin_call, begin_function, called_from, end_call, end_function, enter, enter_root, hold,
    leave, value_args, value_begin,
};
pub use edge::{Edge, set_edge};
pub use flat::{
    flat_begin, flat_end, flat_next, flat_now, flat_parameters, flat_root, flat_thread,
};
pub use host::{
    Opened, call_next, close_scope, end_run, open_run, open_scope, resume, snapshot, unwind,
};
pub use shown::{Shown, shown};

use crate::flat::Flat;
use crate::held::Address;
use crate::run::{Entered, Run};
use crate::scope::Scope;
use crate::wants::Wants;
use edge::edge;
use shown::SHOWN;

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// The run that operations and scopes of this thread belong to.
#[derive(Debug)]
enum Current {
    Run(Box<Run>),
    /// For the time of one operation.
    Flat(Box<Flat>),
}

impl Current {
    fn run(&mut self) -> &mut Run {
        match self {
            Current::Run(run) => run,
            Current::Flat(flat) => flat.run(),
        }
    }

    fn enter(&mut self, scope: Arc<Scope>) -> Entered {
        match self {
            Current::Run(run) => run.enter(scope),
            Current::Flat(flat) => flat.enter(scope),
        }
    }

    /// The number of the frame that was left, if patched copies were made for it.
    fn leave(&mut self) -> Option<u32> {
        match self {
            Current::Run(run) => run.leave().filter(|frame| frame.copies).map(|f| f.serial),
            Current::Flat(flat) => flat.leave().filter(|frame| frame.copies).map(|f| f.serial),
        }
    }
}

/// What goes aside as a whole when another run begins inside.
#[derive(Debug, Default)]
struct Level {
    current: Option<Current>,
    /// Whether the root's code has begun.
    entered: bool,
    node: usize,
    /// What the next TorchScript root is called as, if the host calls it inside the run.
    called: Option<Arc<Scope>>,
    declined: bool,
    /// Begun for a function of the user's, not for a run.
    for_function: bool,
    flat: FlatSlot,
}

/// The flat run of a thread, while it is not at work.
#[derive(Debug, Default)]
struct FlatSlot {
    on: bool,
    idle: Option<Box<Flat>>,
}

#[derive(Debug, Default)]
struct State {
    level: Level,
    /// What is suspended, with the thread's switches; the innermost last.
    outer: Vec<(Level, u32)>,
}

impl Drop for State {
    /// The thread ends: what may still run on it is left alone.
    fn drop(&mut self) {
        SHOWN.with(|shown| {
            for cell in [&shown.run, &shown.wants, &shown.outer_wants, &shown.flat] {
                cell.set(0);
            }
            shown.held.set(Address::NONE);
        });
    }
}

impl State {
    /// Tells the adapter how the thread stands.
    fn show(&mut self) {
        let level = &mut self.level;
        SHOWN.with(|shown| {
            shown.declined.set(level.declined.into());
            let open = level.flat.idle.is_some() || matches!(level.current, Some(Current::Flat(_)));
            shown
                .flat
                .set(u32::from(level.flat.on) * (1 + u32::from(open)));
            let flat_now = matches!(level.current, Some(Current::Flat(_)));
            shown.flat_now.set(flat_now.into());
            shown.node.set(level.node);
            let Some(current) = &mut level.current else {
                for cell in [&shown.run, &shown.wants, &shown.outer_wants] {
                    cell.set(0);
                }
                shown.held.set(Address::NONE);
                return;
            };
            let run = current.run();
            shown.run.set(1);
            let held = run.held.as_ref();
            shown
                .held
                .set(held.map_or(Address::NONE, |held| held.address()));
            if !level.entered {
                shown.wants.set(0);
                shown.outer_wants.set(0);
                return;
            }
            shown.wants.set(run.wants().bits());
            shown
                .frame
                .set(run.frame(0).map_or(0, |frame| frame.serial));
            let outer = run.frame(1);
            shown
                .outer_wants
                .set(outer.map_or(0, |frame| frame.wants.bits()));
            shown.outer_frame.set(outer.map_or(0, |frame| frame.serial));
        });
    }

    fn armed(&mut self) -> bool {
        let level = &mut self.level;
        let wanted = match &mut level.current {
            Some(current) if level.entered => current.run().wants().has(Wants::OPERATIONS),
            _ => false,
        };
        wanted || level.flat.on
    }
}

/// Looks at the state, or changes it and tells the adapter. `None` while somebody else does, and when the thread is
/// ending.
fn with<T>(body: impl FnOnce(&mut State) -> T) -> Option<T> {
    let look = |state: &RefCell<State>| {
        let mut state = state.try_borrow_mut().ok()?;
        let answer = body(&mut state);
        state.show();
        Some(answer)
    };
    STATE.try_with(look).ok().flatten()
}

/// Looks at this thread's run. `None` outside of one.
pub fn with_run<T>(body: impl FnOnce(&mut Run) -> T) -> Option<T> {
    let look = |state: &RefCell<State>| {
        let mut state = state.try_borrow_mut().ok()?;
        state
            .level
            .current
            .as_mut()
            .map(|current| body(current.run()))
    };
    STATE.try_with(look).ok().flatten()
}

/// The same, with the difference between a flat run and others.
fn with_current<T>(body: impl FnOnce(&mut Current) -> T) -> Option<T> {
    let look = |state: &RefCell<State>| {
        let mut state = state.try_borrow_mut().ok()?;
        state.level.current.as_mut().map(body)
    };
    STATE.try_with(look).ok().flatten()
}

fn arm() {
    let on = with(State::armed).unwrap_or(false);
    edge(|edge| edge.arm(on));
}

fn is_inside() -> bool {
    with(|state| state.level.current.is_some()).unwrap_or(false)
}

/// Puts what the thread is in aside, so that another run can begin.
fn suspend() {
    let mut switches = 0;
    edge(|edge| switches = edge.suspend());
    with(|state| {
        let level = std::mem::take(&mut state.level);
        state.outer.push((level, switches));
    });
}

/// Takes it back.
fn take_up() {
    let before = with(|state| {
        let (level, switches) = state.outer.pop()?;
        Some((std::mem::replace(&mut state.level, level), switches))
    });
    if let Some(Some((level, switches))) = before {
        edge(|edge| edge.resume(switches));
        drop(level);
    }
}
