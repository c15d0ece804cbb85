//! A module that is called inside a run: a scope of the library's, whose inputs and output are shown to it.

use super::call::Call;
use super::host_values::{show_inputs, show_output};
use super::object::{Object, Raised, Result, boolean, dict, id, number, saved, tuple};
use super::raw::python;
use super::record::{self, Record, frame, known};
use super::state::State;
use super::thread;
use crate::ffi::call::{gp_scope_open, gp_wants};
use crate::ffi::run::gp_scope_leave;
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
    let go = || match &changed {
        None => call.go(state, module),
        Some(changed) => call_changed(state, module, changed, call),
    };
    if wants & OUTPUT == 0 {
        go()
    } else if !call.is_direct && is_hooked(state, module)? {
        hooked(state, outer, module, go)
    } else {
        show_output(state, outer, go()?)
    }
}

/// The call of a module with hooks of the user's. Functions of the package have its output shown before these hooks see it.
fn hooked(
    state: &State,
    outer: &Object,
    module: &Object,
    go: impl FnOnce() -> Result<Object>,
) -> Result<Object> {
    let begun = state
        .begin_hooked
        .call(&tuple([outer, module].into_iter())?, None)?;
    let end = |given: &[&Object]| state.end_hooked.call(&tuple(given.iter().copied())?, None);
    match go() {
        Ok(output) => end(&[&begun, &output]),
        Err(Raised) => {
            saved(|| drop(end(&[&begun])));
            Err(Raised)
        }
    }
}

/// The call itself, with the arguments as patches left them: `(args, kwargs, what has to be called when it is over)`.
fn call_changed(
    state: &State,
    module: &Object,
    changed: &Object,
    call: &Call<'_>,
) -> Result<Object> {
    let output = call.go_with(state, module, &changed.element(0)?, &changed.element(1)?);
    let over = changed.element(2)?;
    if !over.is_none() {
        match &output {
            Ok(_) => drop(over.call_bare()?),
            // The exception of the model is the one that counts.
            Err(Raised) => saved(|| drop(over.call_bare())),
        }
    }
    output
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
        outer_record.object(frame::TREE).cloned(),
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
