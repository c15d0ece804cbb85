//! What the extension keeps: names, types, and the functions of the package that do what is not done here.

use std::sync::atomic::{AtomicBool, Ordering};

use graphpatch_locks::OnceLock;

use super::object::{Object, Result, interned, raise};
use super::raw::python;

/// `ANY`: whether a call may be a run at all. `SEVERAL`: whether a call inside a run may be a run of its own.
pub static ANY: AtomicBool = AtomicBool::new(false);
pub static SEVERAL: AtomicBool = AtomicBool::new(false);

/// Names of attributes.
pub struct Names {
    pub call_impl: Object,
    pub compiled_call_impl: Object,
    pub cdata: Object,
    pub modules: Object,
    pub forward: Object,
    pub function: Object,
    pub scopes: Object,
    pub ignored: Object,
    /// The attributes in which a module keeps the hooks that may change its output.
    pub hooks: [Object; 3],
}

impl Names {
    fn make() -> Result<Names> {
        Ok(Names {
            call_impl: interned(c"_call_impl")?,
            compiled_call_impl: interned(c"_compiled_call_impl")?,
            cdata: interned(c"_cdata")?,
            modules: interned(c"_modules")?,
            forward: interned(c"forward")?,
            function: interned(c"__func__")?,
            scopes: interned(c"scopes")?,
            ignored: interned(c"ignored")?,
            hooks: [
                interned(c"_forward_hooks")?,
                interned(c"_backward_hooks")?,
                interned(c"_backward_pre_hooks")?,
            ],
        })
    }
}

/// All that [`configure`] is given, in order.
pub struct State {
    pub names: Names,
    /// The classes of the package.
    pub frame: Object,
    pub tensor: Object,
    /// `types.MethodType`.
    pub method: Object,
    /// `watched.roots`.
    pub roots: Object,
    /// `inspect.Parameter.empty`: an argument has no default.
    pub empty: Object,
    /// Whether the number of references to an object tells who holds it.
    pub counts: bool,
    /// `(module)`: begins the run of a call outside of any run. Returns None if nothing is to be done, `(root,)` if `call_root`
    /// has to do the whole call, else the run that has begun, as `(root, wants, signature, arguments, ...)`.
    pub begin: Object,
    /// `(begun)`: ends the run that `begin` has begun.
    pub end: Object,
    /// `(begun, error)`: ends the run when the call has raised `error`; may raise the exception that caused it.
    pub failed: Object,
    /// `(root, frame, module, args, kwargs, call)`: the call of a root.
    pub call_root: Object,
    /// `(frame, module)`: the scope that the module is when it is called from there, or None.
    pub scope_of: Object,
    /// `(frame, module, scope)`: notes that no call of the module from there matters.
    pub ignore: Object,
    /// `(frame, module, signature, args, kwargs)`: shows inputs; returns the arguments as patches left them.
    pub show_inputs: Object,
    /// `(frame, module, signature, args, kwargs, values)`: returns the arguments with the inputs that patches have changed.
    pub changed_inputs: Object,
    /// `(frame, output, owned)`: shows an output; returns it as patches left it.
    pub show_output: Object,
    /// `(frame, output)`: returns what patches made of an output that was shown.
    pub changed_output: Object,
    /// `(status)`: raises what a status stands for.
    pub fail: Object,
    /// `(frame, status)`: the same for a value that could not be shown; the failure may only be noted, without raising.
    pub fail_value: Object,
    /// `(frame, module)`: a call of a module with hooks begins. `(begun, output)`: it has returned; returns
    /// the output as it was shown. `(begun,)`: it has raised.
    pub begin_hooked: Object,
    pub end_hooked: Object,
    /// The dicts of the hooks of all modules.
    pub hooks: [Object; 3],
    /// `()`: settles copies of containers, when a call of a module begins or ends.
    pub settle: Object,
}

// SAFETY: it is used by threads that hold the GIL only.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

static STATE: OnceLock<State> = OnceLock::new();

/// What was configured.
pub fn state() -> Result<&'static State> {
    STATE
        .get()
        .ok_or_else(|| raise(python().system_error, c"configure() was not called"))
}

/// Takes what the package gives, once.
pub fn configure(given: &Object) -> Result<()> {
    let state = State {
        names: Names::make()?,
        frame: given.element(0)?,
        tensor: given.element(1)?,
        method: given.element(2)?,
        roots: given.element(3)?,
        empty: given.element(4)?,
        counts: given.element(5)?.is_true()?,
        begin: given.element(6)?,
        end: given.element(7)?,
        failed: given.element(8)?,
        call_root: given.element(9)?,
        scope_of: given.element(10)?,
        ignore: given.element(11)?,
        show_inputs: given.element(12)?,
        changed_inputs: given.element(13)?,
        show_output: given.element(14)?,
        changed_output: given.element(15)?,
        fail: given.element(16)?,
        fail_value: given.element(17)?,
        begin_hooked: given.element(18)?,
        end_hooked: given.element(19)?,
        hooks: {
            let all = given.element(20)?;
            [all.element(0)?, all.element(1)?, all.element(2)?]
        },
        settle: given.element(21)?,
    };
    STATE
        .set(state)
        .map_err(|_| raise(python().system_error, c"configure() was called before"))
}

/// `watching(any, several)`.
pub fn watching(given: &Object) -> Result<()> {
    let (any, several) = (given.element(0)?.is_true()?, given.element(1)?.is_true()?);
    SEVERAL.store(several, Ordering::Relaxed);
    ANY.store(any, Ordering::Relaxed);
    Ok(())
}
