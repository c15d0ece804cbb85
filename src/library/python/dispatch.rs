//! Decides where a call of a module goes. It does what `call` in `_module_call.py` does, without a Python frame, for ordinary
//! calls. All other calls are left to the functions of the package that [`State`](super::state::State) names.

use super::call::Call;
use super::object::{Object, Result, id, saved, tuple};
use super::record::{Record, frame};
use super::run;
use super::scope;
use super::state::{ANY, SEVERAL, State, state};
use super::thread;
use graphpatch_session::thread::{go_back, position};
use std::sync::atomic::Ordering;

/// Closes the runs and scopes that `body` has left open when it raises. A signal handler may raise between any two Python
/// instructions, so also between the beginning of a run and the `try` that would end it.
fn whole(body: impl FnOnce() -> Result<Object>) -> Result<Object> {
    let (frame, at) = (thread::frame(), position());
    let output = body();
    if output.is_err() {
        saved(|| {
            thread::set_frame(frame);
            // An error means that no adapter is loaded. Then there are no runs to close.
            let _ = go_back(at);
        });
    }
    output
}

/// Leaves a call that is not ordinary to the package's Python code, which does it from the beginning.
fn leave_to_python(call: &Call<'_>) -> Result<Object> {
    let all = tuple(call.arguments.iter())?;
    let keywords = call.keywords()?;
    whole(|| call.fallback.call(&all, keywords.as_ref()))
}

/// Calls a module.
pub fn call(call: &Call<'_>) -> Result<Object> {
    let state = state()?;
    let Some(module) = call.arguments.first() else {
        return leave_to_python(call);
    };
    if !ANY.load(Ordering::Relaxed) {
        return call.go(state, module);
    }
    if thread::is_in_compiled() {
        return leave_to_python(call);
    }
    let Some(current) = thread::frame() else {
        if call.is_direct {
            return call.go(state, module);
        }
        return whole(|| run::call(state, module, call));
    };
    if call.is_direct && !is_from_another(state, &current, module) {
        return call.go(state, module);
    }
    settle(state)?;
    let output = in_run(state, &current, module, call);
    match output {
        Ok(output) => settle(state).map(|()| output),
        Err(raised) => {
            saved(|| drop(settle(state))); // the exception of the model is the one that counts
            Err(raised)
        }
    }
}

/// Settles copies of containers that a call has returned, if there are any, before and after another call.
fn settle(state: &State) -> Result<()> {
    if thread::is_settling() {
        state.settle.call(&tuple([].into_iter())?, None)?;
    }
    Ok(())
}

/// The call of a module inside a run.
fn in_run(state: &State, current: &Object, module: &Object, call: &Call<'_>) -> Result<Object> {
    if SEVERAL.load(Ordering::Relaxed) && state.roots.value(&id(module)?)?.is_some() {
        return leave_to_python(call);
    }
    if current.kind() != state.frame.address() {
        return call.go(state, module);
    }
    // SAFETY: just seen to be of the class that derives from it.
    let record = unsafe { Record::of(current) };
    if is_ignored(record, module)? {
        thread::set_frame(record.object(frame::COLD).cloned());
        let output = call.go(state, module);
        thread::set_frame(Some(current.clone()));
        return output;
    }
    let is_known = call.is_torchs || call.is_direct;
    match scope::known(state, current, record, module, is_known)? {
        Some(known) => scope::call(state, current, record, module, &known, call),
        None => leave_to_python(call),
    }
}

/// Whether the innermost scope is that of another module. A module's call of its own `forward` belongs to its scope.
fn is_from_another(state: &State, current: &Object, module: &Object) -> bool {
    if current.kind() != state.frame.address() {
        return false;
    }
    // SAFETY: just seen to be of the class that derives from it.
    let record = unsafe { Record::of(current) };
    record
        .object(frame::MODULE)
        .is_some_and(|own| !own.is(module))
}

/// Whether calls of the module from this frame are known not to matter. That holds as long as the module is still held
/// in the same place as when it was found.
fn is_ignored(record: &Record, module: &Object) -> Result<bool> {
    let Some(ignored) = record.object(frame::IGNORED).filter(|i| !i.is_none()) else {
        return Ok(false);
    };
    let Some(entry) = ignored.value(&id(module)?)? else {
        return Ok(false);
    };
    if !entry.element(0)?.is(module) {
        return Ok(false);
    }
    let held = entry.element(1)?.value(&entry.element(2)?)?;
    Ok(held.is_some_and(|held| held.is(module)))
}
