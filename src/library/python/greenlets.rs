//! What is done at each switch between greenlets, where it must be whole: `__call__` of the package's `_Switches`.
//!
//! Python runs signal handlers between the instructions of its own functions. If such a handler raised in the middle of a switch
//! that is written in Python, one greenlet's calls would be taken for another one's, and the greenlet package would call the
//! function no more. Here is no instruction of Python's between the beginning of a switch and its end.

use std::ptr::null_mut;

use super::object::{Object, Raised, Result, id, interned, none, number, tuple};
use super::thread;
use crate::ffi::aside::{gp_aside, gp_calls_set_aside, gp_calls_take_up};
use crate::ffi::status::Status;

/// `switched(switches, event, greenlets)`, as a method. `switches.state` is a tuple of pairs of dicts: one that holds attributes
/// of this thread, and one with what those that belong to calls are where no call is under way. `switches.calls` keeps the calls
/// that were set aside, by the greenlet's id. `switches.before` is the program's own function, or None; `switches.failed()` notes
/// that this did not work.
pub fn switched(given: &Object) -> Result<Object> {
    let (switches, event, greenlets) = (given.element(0)?, given.element(1)?, given.element(2)?);
    let named = |name| switches.attribute(&interned(name)?);
    if switch(&named(c"calls")?, &named(c"state")?, &greenlets).is_err() {
        super::object::clear();
        named(c"failed")?.call_bare()?;
    }
    let before = named(c"before")?;
    if before.is_none() {
        return Ok(none());
    }
    before.call(&tuple([&event, &greenlets].into_iter())?, None)
}

fn switch(calls: &Object, state: &Object, greenlets: &Object) -> Result<()> {
    let (left, entered) = (id(&greenlets.element(0)?)?, id(&greenlets.element(1)?)?);
    if let Some(aside) = set_aside(state)? {
        calls.set_value(&left, &aside)?;
    }
    let Some(aside) = calls.value(&entered)? else {
        return Ok(());
    };
    calls.remove(&entered)?;
    take_up(state, &aside)
}

/// Takes this thread's calls from it: `(address, frame, is in compiled code, is settling, attributes)`. None if there are none.
fn set_aside(state: &Object) -> Result<Option<Object>> {
    let mut out: *mut gp_aside = null_mut();
    // SAFETY: a place of this function's.
    let status = unsafe { gp_calls_set_aside(&raw mut out) };
    if status != Status::Ok {
        return Err(Raised);
    }
    let frame = thread::frame();
    if out.is_null() && frame.is_none() {
        return Ok(None);
    }
    let flag = |on: bool| number(u64::from(on));
    let attributes = each(state, |held, name, fresh| {
        let value = held.value(name)?.unwrap_or_else(none);
        held.set_value(name, &fresh.as_new()?)?;
        Ok(value)
    })?;
    let parts = [
        number(out.expose_provenance() as u64)?,
        frame.unwrap_or_else(none),
        flag(thread::is_in_compiled())?,
        flag(thread::is_settling())?,
        attributes,
    ];
    thread::set_frame(None);
    thread::set_flags(false, false);
    tuple(parts.iter()).map(Some)
}

/// Gives this thread the calls back.
fn take_up(state: &Object, aside: &Object) -> Result<()> {
    let address = aside.element(0)?.unsigned()?;
    let taken = gp_calls_take_up(std::ptr::with_exposed_provenance_mut(address as usize));
    let (frame, attributes) = (aside.element(1)?, aside.element(4)?);
    let mut place = 0;
    each(state, |held, name, _| {
        held.set_value(name, &attributes.element(place)?)?;
        place += 1;
        Ok(none())
    })?;
    thread::set_frame((!frame.is_none()).then_some(frame));
    thread::set_flags(aside.element(2)?.is_true()?, aside.element(3)?.is_true()?);
    if taken == Status::Ok {
        Ok(())
    } else {
        Err(Raised)
    }
}

/// Calls `body` with each attribute's dict, name and value where no call is under way. Answers a tuple of what it answers.
fn each(
    state: &Object,
    mut body: impl FnMut(&Object, &Object, &Object) -> Result<Object>,
) -> Result<Object> {
    let mut answers = Vec::new();
    for part in 0..state.tuple_length()? {
        let pair = state.element(part)?;
        let held = pair.element(0)?;
        for (name, fresh) in pair.element(1)?.items() {
            answers.push(body(&held, &name, &fresh)?);
        }
    }
    tuple(answers.iter())
}
