//! A module that is called inside a run: a scope of the library's, whose inputs and output are shown to it.

use std::ffi::c_void;

use super::call::Call;
use super::object::{Object, Raised, Result, boolean, dict, id, number, tuple};
use super::raw::python;
use super::record::{self, Record, frame, known};
use super::state::State;
use super::thread;
use super::values::{Flat, Stop};
use crate::ffi::call::{gp_scope_open, gp_wants};
use crate::ffi::run::gp_scope_leave;
use crate::ffi::shown::{gp_scope_inputs, gp_scope_output};
use crate::ffi::status::Status;
use graphpatch_session::Wants;

const INPUTS: u32 = gp_wants::Inputs as u32;
const OUTPUT: u32 = gp_wants::Output as u32;
const INSIDE: u32 = gp_wants::Inside as u32;
const OPERATIONS: u32 = gp_wants::Operations as u32;
const IGNORED: u32 = gp_wants::Ignored as u32;

/// What is known of the module as it is called from this frame; found anew if it is out of date. `None` if Python has to
/// make the call, as something about the module or the root is unusual.
pub fn known(
    state: &State,
    outer_object: &Object,
    outer: &Record,
    module: &Object,
    is_torchs: bool,
) -> Result<Option<Object>> {
    let (Some(root), Some(above)) = (outer.object(frame::ROOT), outer.object(frame::MODULE)) else {
        return Ok(None);
    };
    if !is_torchs {
        return Ok(None);
    }
    let key = tuple([&id(above)?, &id(module)?].into_iter())?;
    if let Some(found) = root.attribute(&state.names.scopes)?.value(&key)? {
        // SAFETY: the dict has scopes only, whose class derives from it.
        let record = unsafe { Record::of(&found) };
        if is_current(state, record, module)? {
            return Ok(Some(found));
        }
    }
    let made = state
        .scope_of
        .call(&tuple([outer_object, module].into_iter())?, None)?;
    if made.is_none() {
        return Ok(None);
    }
    // SAFETY: the function answers with a scope or None.
    let record = unsafe { Record::of(&made) };
    Ok(is_current(state, record, module)?.then_some(made))
}

/// Does what `Scope.is_current` does, for an ordinary module.
fn is_current(state: &State, known: &Record, module: &Object) -> Result<bool> {
    let names = &state.names;
    let is = |place, object: &Object| known.object(place).is_some_and(|held| held.is(object));
    if known.number(known::IS_PLAIN) == 0
        || known.object(known::KIND).map(Object::address) != Some(module.kind())
    {
        return Ok(false);
    }
    let (Some(itself), Some(holder), Some(held_as)) = (
        known.object(known::MODULE),
        known.object(known::HOLDER),
        known.object(known::HELD_AS),
    ) else {
        return Ok(false);
    };
    if !itself.call_bare()?.is(module) {
        return Ok(false);
    }
    if !holder.is_none() {
        let holder = holder.call_bare()?;
        if holder.is_none() {
            return Ok(false);
        }
        let modules = holder.attribute(&names.modules)?;
        if !modules.is_a(python().dict)
            || !modules.value(held_as)?.is_some_and(|held| held.is(module))
        {
            return Ok(false);
        }
    }
    if !module.attribute(&names.compiled_call_impl)?.is_none() {
        return Ok(false);
    }
    let forward = module.attribute(&names.forward)?;
    if forward.kind() != state.method.address() {
        return Ok(is(known::FORWARD, &forward));
    }
    Ok(is(known::FORWARD, &forward.attribute(&names.function)?))
}

/// The call of a module that is known.
pub fn call(
    state: &State,
    outer: &Object,
    outer_record: &Record,
    module: &Object,
    known: &Object,
    call: &Call<'_>,
) -> Result<Object> {
    // SAFETY: as where it was found.
    let known_record = unsafe { Record::of(known) };
    let mut wants = 0;
    let address = known_record.number(known::ADDRESS) as usize;
    // SAFETY: the scope's address, which is freed with the scope, and a place for the answer.
    let status =
        unsafe { gp_scope_open(std::ptr::with_exposed_provenance(address), &raw mut wants) };
    if status != Status::Ok {
        return Err(fail(state, status));
    }
    let output = inside(
        state,
        outer,
        outer_record,
        module,
        (known, known_record),
        wants,
        call,
    );
    thread::set_frame(Some(outer.clone()));
    gp_scope_leave();
    output
}

fn inside(
    state: &State,
    outer: &Object,
    outer_record: &Record,
    module: &Object,
    (known, known_record): (&Object, &Record),
    wants: u32,
    call: &Call<'_>,
) -> Result<Object> {
    if wants & INSIDE == 0 {
        thread::set_frame(outer_record.object(frame::COLD).cloned());
        let counted = outer_record.number(frame::WANTS) as u32 & OPERATIONS != 0;
        if wants & IGNORED != 0 && !counted {
            let all = [outer, module, known];
            state.ignore.call(&tuple(all.into_iter())?, None)?;
        }
        return call.go(state, module);
    }
    thread::set_frame(Some(open(state, outer, outer_record, module, wants)?));
    let signature = known_record.object(known::SIGNATURE);
    let arguments = known_record.object(known::ARGUMENTS);
    shown(state, outer, module, (signature, arguments), wants, call)
}

/// The call itself, between its inputs and its output.
pub fn shown(
    state: &State,
    outer: &Object,
    module: &Object,
    (signature, arguments): (Option<&Object>, Option<&Object>),
    wants: u32,
    call: &Call<'_>,
) -> Result<Object> {
    let changed = match signature.filter(|signature| wants & INPUTS != 0 && !signature.is_none()) {
        None => None,
        Some(signature) => show_inputs(state, outer, module, signature, arguments, call)?,
    };
    if wants & OUTPUT != 0 && is_hooked(state, module)? {
        let (args, kwargs) = match changed {
            None => (call.args()?, call.kwargs()?),
            Some(changed) => (changed.element(0)?, changed.element(1)?),
        };
        let all = [outer, module, &args, &kwargs, call.original];
        return state.hooked.call(&tuple(all.into_iter())?, None);
    }
    let output = match changed {
        None => call.go(state, module)?,
        Some(changed) => {
            let (args, kwargs) = (changed.element(0)?, changed.element(1)?);
            call.go_with(state, module, &args, &kwargs)?
        }
    };
    match wants & OUTPUT {
        0 => Ok(output),
        _ => show_output(state, outer, output),
    }
}

/// Whether hooks of the user's may change the output inside the module's call. `_hooked.py` asks the same.
fn is_hooked(state: &State, module: &Object) -> Result<bool> {
    for name in &state.names.hooks {
        if module.attribute(name)?.is_true()? {
            return Ok(true);
        }
    }
    for hooks in &state.hooks {
        if hooks.is_true()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The frame of a scope that has opened in `outer`.
fn open(
    state: &State,
    outer: &Object,
    outer_record: &Record,
    module: &Object,
    wants: u32,
) -> Result<Object> {
    let plan = outer_record.number(frame::PLAN);
    let root = outer_record.object(frame::ROOT);
    // In a scope whose operations are counted, every call has to be told of.
    let ignored = match root {
        Some(root) if wants & OPERATIONS == 0 => ignored_by(state, root, plan, wants)?,
        _ => dict()?,
    };
    let objects = [
        root.cloned(),
        Some(module.clone()),
        Some(outer.clone()),
        Some(ignored),
        outer_record.object(frame::COLD).cloned(),
        Some(boolean(false)),
        None,
        None,
    ];
    // SAFETY: the package's class `Frame` derives from it.
    unsafe { record::make(&state.frame, objects, [wants.into(), plan]) }
}

/// The calls that do not matter from a frame at this place among the patches: the content of `Frame.ignored`.
fn ignored_by(state: &State, root: &Object, plan: u64, wants: u32) -> Result<Object> {
    let all = root.attribute(&state.names.ignored)?;
    let place = number((wants >> Wants::SITE_SHIFT).into())?;
    let key = tuple([&number(plan)?, &place].into_iter())?;
    if let Some(found) = all.value(&key)? {
        return Ok(found);
    }
    let made = dict()?;
    all.set_value(&key, &made)?;
    Ok(made)
}

/// Shows the arguments of the call to the library. Returns the changed call if patches have changed an argument.
fn show_inputs(
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
fn show_output(state: &State, outer: &Object, output: Object) -> Result<Object> {
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
    show: impl FnOnce(*const std::ffi::c_char, &[*const c_void], *mut u32) -> Status,
) -> Result<u32> {
    let (text, tensors) = flat.text();
    let mut changed = 0;
    // SAFETY: this thread has the GIL, and has it again before anything of Python's is touched.
    let status = unsafe {
        let thread = (python().PyEval_SaveThread)();
        let status = show(text.as_ptr(), &tensors, &raw mut changed);
        (python().PyEval_RestoreThread)(thread);
        status
    };
    if status != Status::Ok {
        let all = [outer, &number(status as u64)?];
        state.fail_value.call(&tuple(all.into_iter())?, None)?;
        return Ok(0);
    }
    Ok(changed)
}

/// Raises what a status stands for.
fn fail(state: &State, status: Status) -> Raised {
    let raised = number(status as u64)
        .and_then(|status| tuple([&status].into_iter()))
        .and_then(|status| state.fail.call(&status, None));
    match raised {
        Err(raised) => raised,
        Ok(_) => super::object::raise(python().system_error, c"a failure was not raised"),
    }
}

const _: () = assert!(size_of::<*mut ()>() == size_of::<Option<Object>>());
