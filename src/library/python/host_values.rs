//! The inputs and the output of a call: they are shown to the library, and come back as patches left them.

use std::ffi::{c_char, c_void};

use super::call::Call;
use super::object::{Object, Raised, Result, boolean, dict, number, tuple};
use super::raw::python;
use super::state::State;
use super::values::{Flat, Stop};
use crate::ffi::host_values::{gp_scope_inputs, gp_scope_output};
use crate::ffi::status::Status;

/// Shows the arguments of the call to the library. If patches have changed one, returns what the package's `changed_inputs` does.
pub fn show_inputs(
    state: &State,
    outer: &Object,
    module: &Object,
    signature: &Object,
    arguments: Option<&Object>,
    call: &Call<'_>,
) -> Result<Option<Object>> {
    let left_to_python = || {
        let (args, kwargs) = (call.args()?, call.kwargs()?);
        let all = [outer, module, signature, &args, &kwargs];
        state
            .show_inputs
            .call(&tuple(all.into_iter())?, None)
            .map(Some)
    };
    let Some(values) = gather(state, arguments, call)? else {
        return left_to_python();
    };
    let flat = match Flat::of_all(&values, state) {
        Ok(flat) => flat,
        Err(Stop::NotPlain) => return left_to_python(),
        Err(Stop::Raised) => return Err(Raised),
    };
    let changed = show(state, outer, flat, |text, tensors, changed| {
        // SAFETY: the text and the tensors of living values, and a place for the answer.
        unsafe { gp_scope_inputs(text, tensors.as_ptr(), tensors.len(), changed) }
    })?;
    if changed == 0 {
        return Ok(None);
    }
    let (args, kwargs, values) = (call.args()?, call.kwargs()?, tuple(values.iter())?);
    let all = [outer, module, signature, &args, &kwargs, &values];
    state
        .changed_inputs
        .call(&tuple(all.into_iter())?, None)
        .map(Some)
}

/// The value of each argument, in order; `None` if the call or the signature is not plain.
fn gather(
    state: &State,
    arguments: Option<&Object>,
    call: &Call<'_>,
) -> Result<Option<Vec<Object>>> {
    let Some(arguments) = arguments.filter(|arguments| !arguments.is_none()) else {
        return Ok(None);
    };
    let (names, defaults) = (arguments.element(0)?, arguments.element(1)?);
    let positional = arguments.element(2)?.unsigned()? as usize;
    let others = arguments.element(3)?.is_true()?;
    let given = call.arguments.get(1..).unwrap_or_default();
    if given.len() > positional {
        return Ok(None);
    }
    let mut taken = vec![false; call.named.len()];
    let length = names.tuple_length()?;
    let mut values = Vec::with_capacity(length + 1);
    for index in 0..length {
        let value = match given.get(index) {
            Some(value) => value.clone(),
            None => match by_name(call, &names.element(index)?)? {
                Some((at, value)) => {
                    taken.iter_mut().skip(at).take(1).for_each(|it| *it = true);
                    value
                }
                None => defaults.element(index)?,
            },
        };
        if value.is(&state.empty) {
            return Ok(None);
        }
        values.push(value);
    }
    if others {
        values.push(rest(call, &taken)?);
    } else if taken.contains(&false) {
        return Ok(None);
    }
    Ok(Some(values))
}

/// A dict of the arguments that were given by name and are none of the signature's own.
fn rest(call: &Call<'_>, taken: &[bool]) -> Result<Object> {
    let made = dict()?;
    let Some(names) = call.names else {
        return Ok(made);
    };
    for (index, (value, taken)) in call.named.iter().zip(taken).enumerate() {
        if !taken {
            made.set_value(&names.element(index)?, value)?;
        }
    }
    Ok(made)
}

/// The argument of this name, and its place among those that were given by name.
fn by_name(call: &Call<'_>, name: &Object) -> Result<Option<(usize, Object)>> {
    let Some(names) = call.names else {
        return Ok(None);
    };
    for (index, value) in call.named.iter().enumerate() {
        let given = names.element(index)?;
        // Both names are interned as a rule, so most comparisons end at their addresses.
        if given.is(name) || (given.text().is_some() && given.text() == name.text()) {
            return Ok(Some((index, value.clone())));
        }
    }
    Ok(None)
}

/// Shows what the innermost scope returns to the library. Returns the output as patches left it.
pub fn show_output(state: &State, outer: &Object, output: Object) -> Result<Object> {
    // If reference counts can be trusted and only this function holds the tensor, it may be changed in place.
    let is_tensor = output.kind() == state.tensor.address();
    let owned = state.counts && is_tensor && output.references() == 1;
    let flat = match Flat::of(&output, state) {
        Ok(flat) => flat,
        Err(Stop::NotPlain) => {
            let all = [outer, &output, &boolean(owned)];
            return state.show_output.call(&tuple(all.into_iter())?, None);
        }
        Err(Stop::Raised) => return Err(Raised),
    };
    let changed = show(state, outer, flat, |text, tensors, changed| {
        // SAFETY: the text and the tensors of a living value, and a place for the answer.
        unsafe { gp_scope_output(text, tensors.as_ptr(), tensors.len(), owned, changed) }
    })?;
    match changed {
        0 => Ok(output),
        _ => state
            .changed_output
            .call(&tuple([outer, &output].into_iter())?, None),
    }
}

/// Shows a value to the library, without holding the GIL. Returns how many of its leaves were changed.
fn show(
    state: &State,
    outer: &Object,
    flat: Flat,
    show: impl FnOnce(*const c_char, &[*const c_void], *mut u32) -> Status,
) -> Result<u32> {
    let (text, tensors) = flat.text();
    let mut changed = 0;
    // SAFETY: this thread has the GIL, and has it again before anything of Python's is touched.
    let status = unsafe {
        let thread = python().PyEval_SaveThread();
        let status = show(text.as_ptr(), &tensors, &raw mut changed);
        python().PyEval_RestoreThread(thread);
        status
    };
    if status != Status::Ok {
        let all = [outer, &number(status as u64)?];
        state.fail_value.call(&tuple(all.into_iter())?, None)?;
        return Ok(0);
    }
    Ok(changed)
}
