//! The state of a thread: which run is open on it and in which scope the run is, which runs are suspended meanwhile, and the
//! thread's flat run, if it has one. Only this file owns that state; hosts and the adapter change it by calls.
//!
//! Nothing is borrowed while code of the user's may run. So a callback, a finalizer or a destructor that runs a model finds the
//! state usable, and leaves it unchanged. A call that came while the state is borrowed would be refused.

mod adapter;
mod aside;
mod edge;
mod flat;
mod function;
mod host;
mod view;

use std::cell::RefCell;
use std::sync::Arc;

pub use adapter::{
    begin_call, called_from, computed, decline, end_call, enter, enter_root, hold, inner, leave,
    tap, value_args, value_begin,
};
pub use aside::{Aside, set_aside, take_up_again};
pub use edge::{Edge, not_started, set_edge};
pub use flat::{
    flat_begin, flat_end, flat_next, flat_now, flat_parameters, flat_root, flat_thread,
};
pub use function::{begin_function, end_function};
pub use host::{
    Opened, Position, call_next, close_scope, computes, end_run, go_back, named, open_run,
    open_scope, patched, position, resume, snapshot, unwind,
};
pub(crate) use view::VIEW;
pub use view::{ThreadView, view};

use crate::flat::Flat;
use crate::held::Address;
use crate::run::{Entered, Run};
use crate::scope::Scope;
use crate::wants::Wants;
use edge::edge;

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// The run that operations and scopes of this thread belong to.
#[derive(Debug)]
enum Current {
    Run(Box<Run>),
    /// The thread's flat run, which stands here for the time of one operation only.
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

/// What is suspended as a whole when another run begins inside a run.
#[derive(Debug, Default)]
struct Level {
    current: Option<Current>,
    /// Whether the root's code has begun.
    entered: bool,
    node: usize,
    /// The scope that the host announced for the next TorchScript root that is called inside the run.
    called: Option<Arc<Scope>>,
    /// How many calls are open, one in another, of which nothing is wanted.
    declined: u32,
    /// Whether this level was begun for a function of the user's, not for a run.
    for_function: bool,
    flat: FlatSlot,
}

/// The flat run of a thread, between its operations.
#[derive(Debug, Default)]
struct FlatSlot {
    on: bool,
    idle: Option<Box<Flat>>,
}

#[derive(Debug, Default)]
struct State {
    level: Level,
    /// The suspended levels, each with the thread's switches at that time; the innermost last.
    outer: Vec<(Level, u32)>,
}

impl Drop for State {
    /// The thread ends: code that still runs on it is neither recorded nor patched.
    fn drop(&mut self) {
        VIEW.with(ThreadView::forget_run);
        VIEW.with(|view| view.flat.set(0));
    }
}

impl State {
    /// Reads the count of scopes that the adapter has changed without a call.
    fn count_cold(&mut self, view: &ThreadView) {
        if let Some(current) = &mut self.level.current {
            let run = current.run();
            run.cold = view.cold.get().saturating_sub(run.cold_frames());
        }
    }

    /// Writes the state to where the adapter reads it.
    fn show(&mut self, view: &ThreadView) {
        let level = &mut self.level;
        view.declined.set(level.declined);
        let flat_now = matches!(level.current, Some(Current::Flat(_)));
        let open = level.flat.idle.is_some() || flat_now;
        view.flat
            .set(u32::from(level.flat.on) * (1 + u32::from(open)));
        view.flat_now.set(flat_now.into());
        view.node.set(level.node);
        match &mut level.current {
            None => {
                view.forget_run();
                view.armed.set(level.flat.on.into());
            }
            Some(current) => {
                let held = current.run().held.as_ref();
                view.held
                    .set(held.map_or(Address::NONE, |held| held.address()));
                view.run.set(1);
                self.show_scope(view);
            }
        }
    }

    /// The same if only the innermost scope has changed.
    fn show_scope(&mut self, view: &ThreadView) {
        let level = &mut self.level;
        let Some(current) = level.current.as_mut().filter(|_| level.entered) else {
            view.leave_scopes();
            view.armed.set(level.flat.on.into());
            return;
        };
        let run = current.run();
        let wants = run.wants();
        view.wants.set(wants.bits());
        view.cold.set(run.cold + run.cold_frames());
        let armed = wants.has(Wants::OPERATIONS) || level.flat.on;
        view.armed.set(armed.into());
        let (inner, outer) = match run.cold {
            0 => (run.frame(0), run.frame(1)),
            _ => (None, None),
        };
        view.frame.set(inner.map_or(0, |frame| frame.serial));
        view.families.set(inner.map_or(0, |frame| frame.families));
        view.scopes.set(inner.map_or(0, |frame| frame.scopes));
        view.outer_wants
            .set(outer.map_or(0, |frame| frame.wants.bits()));
        view.outer_frame.set(outer.map_or(0, |frame| frame.serial));
    }
}

/// Reads or changes the state, and shows the adapter the result. `None` while the state is borrowed, and when the thread is
/// ending.
fn with<T>(body: impl FnOnce(&mut State) -> T) -> Option<T> {
    change(body, State::show)
}

/// The same for a change that only begins or ends a scope.
fn with_scope<T>(body: impl FnOnce(&mut State) -> T) -> Option<T> {
    change(body, State::show_scope)
}

fn change<T>(
    body: impl FnOnce(&mut State) -> T,
    show: impl FnOnce(&mut State, &ThreadView),
) -> Option<T> {
    let look = |state: &RefCell<State>| {
        let mut state = state.try_borrow_mut().ok()?;
        VIEW.with(|view| {
            state.count_cold(view);
            let answer = body(&mut state);
            show(&mut state, view);
            Some(answer)
        })
    };
    STATE.try_with(look).ok().flatten()
}

/// Calls `body` with this thread's run. `None` outside of one. Scopes that the adapter has entered without a call are not
/// counted yet; see [`with_place`].
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

/// The same for a body that depends on the scope that the run is in.
fn with_place<T>(body: impl FnOnce(&mut Run) -> T) -> Option<T> {
    with(|state| state.level.current.as_mut().map(|run| body(run.run()))).flatten()
}

/// The same, but `body` can tell a flat run from others.
fn with_current<T>(body: impl FnOnce(&mut Current) -> T) -> Option<T> {
    let look = |state: &RefCell<State>| {
        let mut state = state.try_borrow_mut().ok()?;
        state.level.current.as_mut().map(body)
    };
    STATE.try_with(look).ok().flatten()
}

/// Tells libtorch whether the operations of the innermost scope are to be intercepted.
fn arm() {
    let on = VIEW.with(|view| view.armed.get()) != 0;
    edge(|edge| edge.arm(on));
}

fn is_inside() -> bool {
    with(|state| state.level.current.is_some()).unwrap_or(false)
}

/// Suspends the thread's level, so that another run can begin.
fn suspend() {
    let mut switches = 0;
    edge(|edge| switches = edge.suspend());
    with(|state| {
        let level = std::mem::take(&mut state.level);
        state.outer.push((level, switches));
    });
}

/// Goes back to the level that was suspended last.
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
