//! The adapter's calls for a value, from the moment when the value is about to appear.

use std::ffi::c_void;

use super::guard::guard;
use super::lent::{array, array_mut, frames, with_elements};
use super::targets::give_targets;
use crate::seam_generated as raw;
use graphpatch_core::path::Name;
use graphpatch_session::{Operand, Run, Token, ValueKind, ValueWants, thread};

pub(super) unsafe extern "C" fn operands(
    level: u32,
    identities: *const *const c_void,
    n: usize,
    answers: *mut u8,
) {
    guard((), || {
        // SAFETY: both arrays are lent for this call.
        let (identities, answers) = unsafe { (array(identities, n), array_mut(answers, n)) };
        thread::with_run(|run| {
            for (identity, answer) in identities.iter().zip(answers) {
                *answer = raw_operand(run.operand(level as usize, identity.addr(), None)) as u8;
            }
        });
    });
}

pub(super) unsafe extern "C" fn operand(level: u32, tensor: *const raw::GpItem) -> u32 {
    guard(raw::GP_OPERAND_PLAIN, || {
        // SAFETY: an item lent for this call.
        let answer = unsafe {
            with_elements(tensor, 1, |tensor| {
                let tensor = tensor.first()?;
                let known =
                    |run: &mut Run| run.operand(level as usize, tensor.identity, Some(tensor));
                thread::with_run(known)
            })
        };
        raw_operand(answer.unwrap_or(Operand::Plain))
    })
}

fn raw_operand(operand: Operand) -> u32 {
    match operand {
        Operand::Plain => raw::GP_OPERAND_PLAIN,
        Operand::Patched => raw::GP_OPERAND_PATCHED,
        Operand::Undescribed => raw::GP_OPERAND_UNDESCRIBED,
    }
}

pub(super) unsafe extern "C" fn parameter_targets(
    level: u32,
    identity: *const c_void,
    frame: *mut u32,
    owner: *mut *mut raw::GpTargets,
    out: *mut *const raw::GpTarget,
) -> usize {
    guard(0, || {
        let site = |run: &mut Run| {
            let (site, reader) = run.parameter_site(level as usize, identity.addr())?;
            // SAFETY: a place for the answer.
            unsafe { *frame = reader };
            Some(site)
        };
        // SAFETY: places for the answers.
        unsafe { give_targets(site, owner, out) }
    })
}

pub(super) fn value_kind(kind: u32, id: u32) -> ValueKind {
    match kind {
        raw::GP_VALUE_INPUT => ValueKind::Input(id),
        raw::GP_VALUE_OUTPUT => ValueKind::Output,
        _ => ValueKind::Op(id),
    }
}

pub(super) fn raw_token(token: &Token) -> raw::GpToken {
    let (kind, id) = match token.kind {
        ValueKind::Op(id) => (raw::GP_VALUE_OP, id),
        ValueKind::Input(index) => (raw::GP_VALUE_INPUT, index),
        ValueKind::Output => (raw::GP_VALUE_OUTPUT, 0),
    };
    raw::GpToken {
        run: token.run,
        serial: token.serial,
        depth: token.depth,
        kind,
        id,
        base: token.name.base,
        number: token.name.num,
        site: token.site.map_or(0, |site| site + 1),
        reserved: 0,
    }
}

/// # Safety
///
/// `token` points to one that `value_begin` filled.
pub(super) unsafe fn token(token: *const raw::GpToken) -> Token {
    // SAFETY: by this function's contract.
    let raw = unsafe { &*token };
    Token {
        run: raw.run,
        serial: raw.serial,
        depth: raw.depth,
        kind: value_kind(raw.kind, raw.id),
        name: Name {
            base: raw.base,
            num: raw.number,
        },
        site: raw.site.checked_sub(1),
    }
}

pub(super) unsafe extern "C" fn value_begin(kind: u32, id: u32, out: *mut raw::GpToken) -> u32 {
    guard(0, || {
        let Some((token, wants)) = thread::value_begin(value_kind(kind, id)) else {
            return 0;
        };
        // SAFETY: a place for the answer.
        unsafe { *out = raw_token(&token) };
        raw_wants(wants)
    })
}

pub(super) fn raw_wants(wants: ValueWants) -> u32 {
    (u32::from(wants.elements) * raw::GP_VALUE_ITEMS)
        | (u32::from(wants.targets) * raw::GP_VALUE_TARGETS)
        | (u32::from(wants.args) * raw::GP_VALUE_ARGS)
        | (u32::from(wants.inside) * raw::GP_VALUE_INSIDE)
        | (u32::from(wants.inside_targets) * raw::GP_VALUE_INSIDE_TARGETS)
}

pub(super) unsafe extern "C" fn inner(
    outer: *const raw::GpToken,
    which: u32,
    kind: u32,
    id: u32,
    out: *mut raw::GpToken,
) -> u32 {
    guard(0, || {
        let kind = (kind != raw::GP_VALUE_UNSEEN).then(|| value_kind(kind, id));
        // SAFETY: a token of `value_begin`'s.
        let outer = unsafe { token(outer) };
        let Some((token, wants)) = thread::inner(&outer, which as usize, kind) else {
            return 0;
        };
        // SAFETY: a place for the answer.
        unsafe { *out = raw_token(&token) };
        raw_wants(wants)
    })
}

pub(super) unsafe extern "C" fn value_args(
    value: *const raw::GpToken,
    items: *const raw::GpItem,
    n: usize,
    source: *const raw::GpFrame,
    n_source: usize,
) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s; items and frames lent for this call.
        unsafe {
            let (value, source) = (token(value), frames(source, n_source));
            with_elements(items, n, |given| thread::value_args(&value, given, source));
        }
    });
}

pub(super) unsafe extern "C" fn value_targets(
    value: *const raw::GpToken,
    owner: *mut *mut raw::GpTargets,
    out: *mut *const raw::GpTarget,
) -> usize {
    guard(0, || {
        // SAFETY: a token of `value_begin`'s.
        let value = unsafe { token(value) };
        // SAFETY: places for the answers.
        unsafe { give_targets(|run| run.value_site(&value), owner, out) }
    })
}

pub(super) unsafe extern "C" fn value_items(
    value: *const raw::GpToken,
    items: *const raw::GpItem,
    n: usize,
) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s; items lent for this call.
        unsafe {
            let value = token(value);
            with_elements(items, n, |given| {
                thread::with_run(|run| run.value(&value, given))
            });
        }
    });
}

pub(super) unsafe extern "C" fn tap(path: raw::GpStr, out: *mut raw::GpToken) -> u32 {
    guard(0, || {
        // SAFETY: text lent for this call.
        let Some(token) = thread::tap(unsafe { super::lent::text(path) }) else {
            return 0;
        };
        // SAFETY: a place for the answer.
        unsafe { *out = raw_token(&token) };
        1
    })
}

pub(super) unsafe extern "C" fn value_abandon(value: *const raw::GpToken) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s.
        let value = unsafe { token(value) };
        thread::with_run(|run| run.abandon(&value));
    });
}
