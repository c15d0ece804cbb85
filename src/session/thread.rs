//! The state of a thread: which run is open on it and in which scope it stands, what is suspended meanwhile, and the
//! flat run that it may have beside. It has one owner, this file; hosts and the adapter change it by calls.
//!
//! Nothing is borrowed while code of the user's may run: a callback, a finalizer or a destructor that runs a model finds
//! the thread as it is, and leaves it so. A call that comes while the state is borrowed is refused; none does.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::flat::{Flat, Next};
use crate::held::Held;
use crate::record::{Element, Source};
use crate::run::{Entered, Run};
use crate::scope::{Root, Scope};
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::value::{Token, ValueKind};
use crate::wants::{ValueWants, Wants};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph::SourceLine as Line;
use graphpatch_locks::OnceLock;

/// What only libtorch's side can do for a thread.
pub trait Edge: Send + Sync {
    /// Operations of this thread are intercepted from now on, or not any more.
    fn arm(&self, on: bool);
    /// Lets everything pass on this thread, also inside an operation that is intercepted. Gives what was set before.
    fn suspend(&self) -> u32;
    /// Sets what [`Edge::suspend`] gave.
    fn resume(&self, before: u32);
    /// The node of a backward pass that this thread computes, or 0.
    fn node(&self) -> usize;
}

/// Set when the adapter has started; for the life of the process.
static EDGE: OnceLock<&'static dyn Edge> = OnceLock::new();

/// What the adapter reads of a thread, and nobody but this file writes. `GpThread` in the seam.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Shown {
    /// 1: a run is open.
    pub run: Cell<u32>,
    /// [`Wants`] of the innermost scope; 0 before the root's code has begun.
    pub wants: Cell<u32>,
    /// Another number for every frame of the run.
    pub frame: Cell<u32>,
    /// The same of the scope around.
    pub outer_wants: Cell<u32>,
    pub outer_frame: Cell<u32>,
    /// 1: inside a call of a root of which nothing is wanted.
    pub declined: Cell<u32>,
    /// 1: operations outside of other runs are in flat runs; 2: and one is open.
    pub flat: Cell<u32>,
    /// 1: the run is the flat one, for the time of one operation.
    pub flat_now: Cell<u32>,
    /// The node of the backward pass in which the run began, or 0.
    pub node: Cell<usize>,
    /// [`Held::address`], or 0.
    pub held: Cell<usize>,
}

thread_local! {
    /// Has no destructor, so the adapter may read it as long as the thread lives.
    static SHOWN: Shown = const {
        Shown {
            run: Cell::new(0),
            wants: Cell::new(0),
            frame: Cell::new(0),
            outer_wants: Cell::new(0),
            outer_frame: Cell::new(0),
            declined: Cell::new(0),
            flat: Cell::new(0),
            flat_now: Cell::new(0),
            node: Cell::new(0),
            held: Cell::new(0),
        }
    };
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
            shown.held.set(0);
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
                shown.held.set(0);
                return;
            };
            let run = current.run();
            shown.run.set(1);
            let held = run.held.as_ref();
            shown.held.set(held.map_or(0, |held| held.address()));
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

fn edge(act: impl FnOnce(&dyn Edge)) {
    if let Some(edge) = EDGE.get() {
        act(*edge);
    }
}

/// The adapter has started.
pub fn set_edge(edge: &'static dyn Edge) {
    EDGE.get_or_init(|| edge);
}

/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
fn ready() -> Result<()> {
    match EDGE.get() {
        Some(_) => Ok(()),
        None => Err(Error::Torch(
            "no session was attached to libtorch in this process yet, nor was the adapter loaded"
                .into(),
        )),
    }
}

/// What the adapter reads of this thread, valid as long as the thread lives.
pub fn shown() -> *const Shown {
    SHOWN.with(std::ptr::from_ref)
}

fn arm() {
    let on = with(State::armed).unwrap_or(false);
    edge(|edge| edge.arm(on));
}

/// A run that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// What is wanted of its innermost scope.
    pub wants: Wants,
    /// [`graphpatch_core::patch::Plan::serial`]; 0 without patches.
    pub plan: u64,
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

/// Makes a run the thread's, inside the one that it is in.
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

/// Begins a run of `root` on this thread, for `session` or the attached one. `None`: nothing is wanted of it.
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

/// Begins, on this thread, a run that stands where the other one stood; see [`Run::resume`].
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
    Ok(with_run(|run| Arc::new(run.snapshot())))
}

/// Begins a run that a call of a TorchScript root is; its scope opens with [`enter_root`]. `None`: nothing is wanted of
/// it, and what it calls is no call of a root, until [`end_call`].
pub fn begin_call(root: Arc<Root>) -> Option<Wants> {
    let begun = Run::begin(root);
    with(|state| match begun {
        Some((run, wants)) => {
            state.level.current = Some(Current::Run(Box::new(run)));
            state.level.entered = false;
            Some(wants)
        }
        None => {
            state.level.declined = true;
            None
        }
    })?
}

/// The call of a root of which nothing was wanted is over.
pub fn end_call() {
    with(|state| state.level.declined = false);
}

/// The code of a TorchScript root begins: the run's own, or one that is called inside a run, by a host that has said
/// what as, or by an operation as `scope`.
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

/// Ends this thread's run, and the scopes that are open in it; the one that it suspended goes on.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn end_run() -> Result<()> {
    ready()?;
    let ended = with(|state| {
        let level = &mut state.level;
        let current = match level.current.take() {
            // The flat run is at work: it ends with its thread.
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

/// A function of the user's is about to be called: the models that it runs are no part of this run.
pub fn begin_function() {
    suspend();
    with(|state| state.level.for_function = true);
}

/// It has returned; runs that it left open end.
pub fn end_function() {
    while is_inside() {
        if end_run().is_err() {
            break;
        }
    }
    take_up();
}

/// A module is called. `None`: outside a run.
pub fn enter(scope: Arc<Scope>) -> Option<Wants> {
    let mut about = None;
    let entered = with(|state| {
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

/// See [`enter`], for a host.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn open_scope(scope: &Arc<Scope>) -> Result<Option<Wants>> {
    ready()?;
    Ok(enter(scope.clone()))
}

/// The innermost module has returned.
pub fn leave() {
    let left = with(|state| {
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

/// See [`leave`], for a host.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter has started.
pub fn close_scope() -> Result<()> {
    ready()?;
    leave();
    Ok(())
}

/// The next call of a TorchScript module inside this thread's run is one of `scope`. Returns how many scopes are open.
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

/// Leaves the scopes above the first `wanted` ones, which an exception left open.
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
        leave();
    }
    Ok(())
}

/// The lines of TorchScript source from which the innermost scope was called.
pub fn called_from(lines: Vec<Line>) {
    with_run(|run| run.called_from(lines));
}

/// The adapter keeps something alive for this thread's run.
pub fn hold(held: Arc<dyn Held>) {
    let before = with(|state| match &mut state.level.current {
        Some(current) => current.run().held.replace(held),
        None => Some(held),
    });
    drop(before);
}

/// A value is about to appear in the innermost scope. `None`: nothing is wanted of it.
pub fn value_begin(kind: ValueKind) -> Option<(Token, ValueWants)> {
    with_current(|current| match current {
        Current::Run(run) => run.value_begin(kind),
        Current::Flat(flat) => flat.value_begin(kind),
    })?
}

/// What the value is made from; where libtorch knows it, the lines of source behind it.
pub fn value_args(token: &Token, elements: &[Element<'_>], lines: Vec<Line>) {
    let asked = with_run(|run| run.source_of(token)).flatten();
    // Asks code of the user's.
    let source = asked.map_or_else(Source::default, |(session, script)| session.source(script));
    with_run(|run| run.args(token, elements, source, lines));
}

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
