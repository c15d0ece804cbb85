//! A call of a module: what `call` in `_module_call.py` does, without a frame of Python's, where nothing is in the way.
//! Everything that is rare is left to the functions that [`State`] names.

use super::object::{Object, Raised, Result, id, tuple};
use super::raw::{PyObject, python};
use super::record::{Record, frame};
use super::run;
use super::scope;
use super::state::{ANY, SEVERAL, State, state};
use super::thread;
use graphpatch_session::thread::{go_back, place};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

/// The arguments of one call, as Python gives them.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What takes the place of `Module.__call__`'s.
    pub original: &'a Object,
    /// Does all of it in Python.
    pub fallback: &'a Object,
    /// Whether `original` is torch's own.
    pub is_torchs: bool,
    /// The module is the first of them.
    pub arguments: &'a [Object],
    pub flags: usize,
    pub names: Option<&'a Object>,
    /// Those that are given by name.
    pub named: &'a [Object],
}

impl Call<'_> {
    /// The call itself, with nothing of ours around it.
    pub fn go(&self, state: &State, module: &Object) -> Result<Object> {
        if self.is_torchs && self.is_plain(state, module)? {
            let names = self.names.map_or(null_mut(), Object::address);
            // SAFETY: the arguments are those that Python gave, with the module in front, as a method is called.
            return unsafe {
                Object::made((python().PyObject_VectorcallMethod)(
                    state.names.call_impl.address(),
                    self.arguments.as_ptr().cast::<*mut PyObject>(),
                    self.flags,
                    names,
                ))
            };
        }
        let all = tuple(self.arguments.iter())?;
        self.original.call(&all, self.keywords()?.as_ref())
    }

    /// What is not plain is done in Python, from the beginning.
    fn leave_to_python(&self) -> Result<Object> {
        let all = tuple(self.arguments.iter())?;
        let keywords = self.keywords()?;
        whole(|| self.fallback.call(&all, keywords.as_ref()))
    }

    /// torch's `__call__` chooses by this.
    fn is_plain(&self, state: &State, module: &Object) -> Result<bool> {
        Ok(module.attribute(&state.names.compiled_call_impl)?.is_none())
    }

    /// The same with other arguments.
    pub fn go_with(
        &self,
        state: &State,
        module: &Object,
        args: &Object,
        kwargs: &Object,
    ) -> Result<Object> {
        if self.is_torchs && self.is_plain(state, module)? {
            return module
                .attribute(&state.names.call_impl)?
                .call(args, Some(kwargs));
        }
        let mut all = vec![module.clone()];
        for index in 0..args.tuple_length()? {
            all.push(args.element(index)?);
        }
        self.original.call(&tuple(all.iter())?, Some(kwargs))
    }

    /// The arguments behind the module, as a tuple.
    pub fn args(&self) -> Result<Object> {
        tuple(self.arguments.get(1..).unwrap_or_default().iter())
    }

    /// A dict of the named ones; `None` without any.
    fn keywords(&self) -> Result<Option<Object>> {
        let Some(names) = self.names.filter(|_| !self.named.is_empty()) else {
            return Ok(None);
        };
        let made = super::object::dict()?;
        for (index, value) in self.named.iter().enumerate() {
            made.set_value(&names.element(index)?, value)?;
        }
        Ok(Some(made))
    }

    /// A dict of the named ones.
    pub fn kwargs(&self) -> Result<Object> {
        match self.keywords()? {
            Some(made) => Ok(made),
            None => super::object::dict(),
        }
    }
}

/// An exception out of a signal handler may come between any two of Python's instructions, between the beginning of a run and the
/// `try` that ends it, too. Where the body raises, what it has left open is closed.
fn whole(body: impl FnOnce() -> Result<Object>) -> Result<Object> {
    let (frame, place) = (thread::frame(), place());
    let output = body();
    if output.is_err() {
        super::object::saved(|| {
            thread::set_frame(frame);
            // Without an adapter there are no runs.
            let _ = go_back(place);
        });
    }
    output
}

/// Calls a module.
pub fn call(call: &Call<'_>) -> Result<Object> {
    let state = state()?;
    let Some(module) = call.arguments.first() else {
        return call.leave_to_python();
    };
    if !ANY.load(Ordering::Relaxed) {
        return call.go(state, module);
    }
    if thread::is_in_compiled() {
        return call.leave_to_python();
    }
    let Some(current) = thread::frame() else {
        return whole(|| run::call(state, module, call));
    };
    if SEVERAL.load(Ordering::Relaxed) && state.roots.value(&id(module)?)?.is_some() {
        return call.leave_to_python();
    }
    if current.kind() != state.frame.address() {
        return call.go(state, module);
    }
    // SAFETY: just seen to be of the class that derives from it.
    let record = unsafe { Record::of(&current) };
    if is_ignored(record, module)? {
        thread::set_frame(record.object(frame::COLD).cloned());
        let output = call.go(state, module);
        thread::set_frame(Some(current));
        return output;
    }
    match scope::known(state, &current, record, module, call.is_torchs)? {
        Some(known) => scope::call(state, &current, record, module, &known, call),
        None => call.leave_to_python(),
    }
}

/// Whether calls of the module from this frame cannot matter: the module still hangs where it did when that was found.
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

/// What a call answers to Python.
pub fn answer(result: Result<Object>) -> *mut PyObject {
    match result {
        Ok(object) => object.give(),
        Err(Raised) => null_mut(),
    }
}
