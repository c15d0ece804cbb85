//! One call of a module, as Python gives it: its arguments, and how to make the call as it would be without this library.

use super::object::{Object, Raised, Result, tuple};
use super::raw::{PyObject, python};
use super::state::State;
use std::ptr::null_mut;

/// The arguments of one call, as Python gives them.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The function that was `Module.__call__` before ours took its place.
    pub original: &'a Object,
    /// The function of the package that does the whole call in Python.
    pub fallback: &'a Object,
    /// Whether `original` is torch's own.
    pub is_torchs: bool,
    /// Whether `original` is the `forward` of the module's class, which another module calls directly. torch runs no hooks
    /// in such a call.
    pub is_direct: bool,
    /// The arguments. The module is the first of them.
    pub arguments: &'a [Object],
    pub flags: usize,
    pub names: Option<&'a Object>,
    /// The arguments that are given by name.
    pub named: &'a [Object],
}

impl Call<'_> {
    /// Makes the call as it would be without this library.
    pub fn go(&self, state: &State, module: &Object) -> Result<Object> {
        if self.is_torchs && self.is_plain(state, module)? {
            let names = self.names.map_or(null_mut(), Object::address);
            // SAFETY: the arguments are those that Python gave, with the module in front, as a method is called.
            return unsafe {
                Object::made(python().PyObject_VectorcallMethod(
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

    /// Whether the module has no compiled form: torch's `__call__` calls `_call_impl` then.
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

    /// The arguments after the module, as a tuple.
    pub fn args(&self) -> Result<Object> {
        tuple(self.arguments.get(1..).unwrap_or_default().iter())
    }

    /// A dict of the named ones; `None` without any.
    pub fn keywords(&self) -> Result<Option<Object>> {
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

/// Turns a result into what C code returns to Python: a new reference, or NULL with an exception set.
pub fn answer(result: Result<Object>) -> *mut PyObject {
    match result {
        Ok(object) => object.give(),
        Err(Raised) => null_mut(),
    }
}
