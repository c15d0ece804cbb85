//! The core's side of the seam: raw structs in, safe calls of [`graphpatch_session`] out.
//!
//! Every function here is called by the adapter (see `seam.h` for the contract). A panic ends at this edge: it
//! disables the library and the host goes on.

mod device;
mod flat;
mod held;
mod lent;
mod targets;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lent::{array, borrowed, elements, frames, text, view};
use targets::give_targets;

use super::seam_generated as raw;
use graphpatch_apply::{Scalar, View};
use graphpatch_core::path::Name;
use graphpatch_session::thread::{self, Shown};
use graphpatch_session::{
    self as session, Root, Run, Scope, Token, ValueKind, Verdict, Wants, ops,
};

/// The table that the adapter gets; lives as long as the process.
pub static CORE: Core = Core(raw::GpCore {
    version: raw::GP_SEAM_VERSION,
    size: size_of::<raw::GpCore>() as u32,
    active: session::ACTIVE.as_ptr().cast_const(),
    op_define: Some(op_define),
    op_exists: Some(op_exists),
    scope_define: Some(scope_define),
    scope_free: Some(scope_free),
    root_define: Some(root_define),
    root_free: Some(root_free),
    thread: Some(this_thread),
    call_begin: Some(call_begin),
    call_end: Some(call_end),
    root_enter: Some(root_enter),
    run_parameters: Some(run_parameters),
    run_end: Some(run_end),
    hold: Some(held::hold),
    function_begin: Some(function_begin),
    function_end: Some(function_end),
    scope_enter: Some(scope_enter),
    scope_leave: Some(scope_leave),
    scope_source: Some(scope_source),
    operands: Some(operands),
    parameter_targets: Some(parameter_targets),
    value_begin: Some(value_begin),
    value_args: Some(value_args),
    value_targets: Some(value_targets),
    targets_free: Some(targets::targets_free),
    value_items: Some(value_items),
    value_abandon: Some(value_abandon),
    apply: Some(apply),
    keep_wanted: Some(keep_wanted),
    keep: Some(keep),
    apply_scalar: Some(apply_scalar),
    applied_elsewhere: Some(applied_elsewhere),
    failure: Some(failure),
    note: Some(note),
    apply_on_device: Some(device::apply_on_device),
    flush_device: Some(device::flush_device),
    keep_on_device: Some(device::keep_on_device),
    is_capturing: Some(device::is_capturing),
    flat_thread: Some(flat::flat_thread),
    flat_begin: Some(flat::flat_begin),
    flat_next: Some(flat::flat_next),
    flat_root: Some(flat::flat_root),
    flat_now: Some(flat::flat_now),
    flat_end: Some(flat::flat_end),
    lock_enter: Some(lock_enter),
    lock_leave: Some(lock_leave),
});

// The session's numbers are the seam's.
const _: () = {
    assert!(Wants::INPUTS == raw::GP_WANTS_INPUTS);
    assert!(Wants::OUTPUT == raw::GP_WANTS_OUTPUT);
    assert!(Wants::INSIDE == raw::GP_WANTS_INSIDE);
    assert!(Wants::PARAMETERS == raw::GP_WANTS_PARAMETERS);
    assert!(Wants::RECORD == raw::GP_WANTS_RECORD);
    assert!(Wants::OPERATIONS == raw::GP_WANTS_OPERATIONS);
    assert!(Wants::IGNORED == raw::GP_WANTS_IGNORED);
    assert!(Wants::OPERANDS == raw::GP_WANTS_OPERANDS);
    assert!(Wants::SOURCE == raw::GP_WANTS_SOURCE);
    assert!(Wants::SITE_SHIFT == raw::GP_WANTS_SITE_SHIFT);
    assert!(size_of::<Shown>() == size_of::<raw::GpThread>());
    assert!(align_of::<Shown>() == align_of::<raw::GpThread>());
    macro_rules! same_place {
        ($($field:ident)*) => {
            $(assert!(std::mem::offset_of!(Shown, $field) == std::mem::offset_of!(raw::GpThread, $field));)*
        };
    }
    same_place!(run wants frame outer_wants outer_frame declined flat flat_now node held);
};

unsafe extern "C" fn lock_enter() {
    graphpatch_locks::gate::enter();
}

unsafe extern "C" fn lock_leave() {
    graphpatch_locks::gate::leave();
}

/// [`raw::GpCore`] as a static.
pub struct Core(pub raw::GpCore);

// SAFETY: the table is never written; its one data pointer is to an atomic.
unsafe impl Sync for Core {}

/// Runs `body`; after a panic, `fallback`, with the library disabled.
fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic".into());
        session::disable(&why);
        fallback
    })
}

unsafe extern "C" fn op_define(name: raw::GpStr) -> u32 {
    // SAFETY: the adapter lends the text for this call.
    guard(u32::MAX, || ops::define(unsafe { text(name) }))
}

unsafe extern "C" fn op_exists(name: raw::GpStr) {
    // SAFETY: the adapter lends the text for this call.
    guard((), || ops::exists(unsafe { text(name) }));
}

unsafe extern "C" fn scope_define(info: *const raw::GpScopeInfo) -> *mut raw::GpScope {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the adapter lends the struct and what it points to for this call.
        let scope = unsafe {
            let info = &*info;
            let inputs = array(info.inputs, info.n_inputs);
            Scope::new(
                text(info.module_path),
                text(info.absolute_path),
                text(info.class_name),
                inputs.iter().map(|input| text(*input).to_owned()).collect(),
            )
            .relative()
        };
        Arc::into_raw(Arc::new(scope)).cast_mut().cast()
    })
}

unsafe extern "C" fn scope_free(scope: *mut raw::GpScope) {
    if !scope.is_null() {
        // SAFETY: the handle is `scope_define`'s, given back once.
        guard((), || drop(unsafe { Arc::from_raw(scope.cast::<Scope>()) }));
    }
}

/// Another reference to the scope behind a handle.
///
/// # Safety
///
/// `scope` came from `scope_define` and was not freed.
unsafe fn share<T>(handle: *const T) -> Arc<T> {
    // SAFETY: by this function's contract the count is at least 1.
    unsafe {
        Arc::increment_strong_count(handle);
        Arc::from_raw(handle)
    }
}

unsafe extern "C" fn root_define(info: *const raw::GpRootInfo) -> *mut raw::GpRoot {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the adapter lends the struct for this call; its scope is a live handle.
        let root = unsafe {
            let info = &*info;
            let parameters = array(info.parameters, info.n_parameters);
            Root::new(
                share(info.scope.cast::<Scope>().cast_const()),
                text(info.name),
                parameters.iter().map(|p| text(*p).to_owned()).collect(),
            )
        };
        Arc::into_raw(Arc::new(root)).cast_mut().cast()
    })
}

unsafe extern "C" fn root_free(root: *mut raw::GpRoot) {
    if !root.is_null() {
        // SAFETY: the handle is `root_define`'s, given back once.
        guard((), || drop(unsafe { Arc::from_raw(root.cast::<Root>()) }));
    }
}

extern "C" fn this_thread() -> *const raw::GpThread {
    thread::shown().cast()
}

unsafe extern "C" fn call_begin(root: *mut raw::GpRoot) -> u32 {
    guard(0, || {
        // SAFETY: the handle is `root_define`'s, and alive.
        let root = unsafe { share(root.cast::<Root>().cast_const()) };
        thread::begin_call(root).map_or(0, Wants::bits)
    })
}

extern "C" fn call_end() {
    guard((), thread::end_call);
}

unsafe extern "C" fn root_enter(scope: *mut raw::GpScope) -> u32 {
    guard(0, || {
        // SAFETY: a live scope.
        let scope = unsafe { share(scope.cast::<Scope>().cast_const()) };
        thread::enter_root(scope).bits()
    })
}

unsafe extern "C" fn run_parameters(identities: *const *const c_void, n: usize) {
    guard((), || {
        // SAFETY: the array is lent for this call.
        let identities = unsafe { array(identities, n) };
        thread::with_run(|run| run.set_parameters(identities.iter().map(|i| i.addr())));
    });
}

extern "C" fn run_end() {
    guard((), || drop(thread::end_run()));
}

extern "C" fn function_begin() {
    guard((), thread::begin_function);
}

extern "C" fn function_end() {
    guard((), thread::end_function);
}

unsafe extern "C" fn scope_enter(scope: *mut raw::GpScope) -> u32 {
    guard(0, || {
        // SAFETY: a live scope.
        let scope = unsafe { share(scope.cast::<Scope>().cast_const()) };
        thread::enter(scope).map_or(0, Wants::bits)
    })
}

extern "C" fn scope_leave() {
    guard((), thread::leave);
}

unsafe extern "C" fn scope_source(source: *const raw::GpFrame, n: usize) {
    guard((), || {
        // SAFETY: frames lent for this call.
        thread::called_from(unsafe { frames(source, n) });
    });
}

unsafe extern "C" fn operands(level: u32, items: *const raw::GpItem, n: usize, replace: *mut u8) {
    guard((), || {
        // SAFETY: items lent for this call.
        let tensors = unsafe { elements(items, n) };
        thread::with_run(|run| {
            run.operands(level as usize, &tensors, |index| {
                // SAFETY: `replace` has `n` places and `index` is one of them.
                unsafe { *replace.add(index) = 1 }
            });
        });
    });
}

unsafe extern "C" fn parameter_targets(
    level: u32,
    identity: *const c_void,
    owner: *mut *mut raw::GpTargets,
    out: *mut *const raw::GpTarget,
) -> usize {
    guard(0, || {
        let site = |run: &mut Run| run.parameter_site(level as usize, identity.addr());
        // SAFETY: places for the answers.
        unsafe { give_targets(site, owner, out) }
    })
}

fn value_kind(kind: u32, id: u32) -> ValueKind {
    match kind {
        raw::GP_VALUE_INPUT => ValueKind::Input(id),
        raw::GP_VALUE_OUTPUT => ValueKind::Output,
        _ => ValueKind::Op(id),
    }
}

fn raw_token(token: &Token) -> raw::GpToken {
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
unsafe fn token(token: *const raw::GpToken) -> Token {
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

unsafe extern "C" fn value_begin(kind: u32, id: u32, out: *mut raw::GpToken) -> u32 {
    guard(0, || {
        let Some((token, wants)) = thread::value_begin(value_kind(kind, id)) else {
            return 0;
        };
        // SAFETY: a place for the answer.
        unsafe { *out = raw_token(&token) };
        (u32::from(wants.elements) * raw::GP_VALUE_ITEMS)
            | (u32::from(wants.targets) * raw::GP_VALUE_TARGETS)
            | (u32::from(wants.args) * raw::GP_VALUE_ARGS)
    })
}

unsafe extern "C" fn value_args(
    value: *const raw::GpToken,
    items: *const raw::GpItem,
    n: usize,
    source: *const raw::GpFrame,
    n_source: usize,
) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s; items and frames lent for this call.
        let (value, given, source) =
            unsafe { (token(value), elements(items, n), frames(source, n_source)) };
        thread::value_args(&value, &given, source);
    });
}

unsafe extern "C" fn value_targets(
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

unsafe extern "C" fn value_items(value: *const raw::GpToken, items: *const raw::GpItem, n: usize) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s; items lent for this call.
        let (value, given) = unsafe { (token(value), elements(items, n)) };
        thread::with_run(|run| run.value(&value, &given));
    });
}

unsafe extern "C" fn value_abandon(value: *const raw::GpToken) {
    guard((), || {
        // SAFETY: a token of `value_begin`'s.
        let value = unsafe { token(value) };
        thread::with_run(|run| run.abandon(&value));
    });
}

fn verdict(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Applied => raw::GP_APPLIED,
        Verdict::Skipped => raw::GP_SKIPPED,
        Verdict::Raise => raw::GP_RAISE,
        Verdict::Elsewhere => raw::GP_ELSEWHERE,
    }
}

unsafe extern "C" fn keep_wanted(target: *const raw::GpTarget) -> u32 {
    guard(0, || {
        // SAFETY: the target lent for this call.
        let patch = unsafe { &*target }.patch;
        thread::with_run(|run| run.keep_wanted(patch))
            .unwrap_or(false)
            .into()
    })
}

/// Shows the run the tensor that the adapter lends.
///
/// # Safety
///
/// Target and tensor are as `seam.h` says, and the tensor's memory is this call's alone.
unsafe fn with_view(
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
    act: impl FnOnce(&mut Run, u32, &View<'_>) -> Verdict,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: by this function's contract.
        let (target, view) = unsafe { (&*target, view(&*tensor)) };
        let Some(view) = view else {
            return raw::GP_ELSEWHERE;
        };
        thread::with_run(|run| act(run, target.patch, &view)).map_or(raw::GP_ELSEWHERE, verdict)
    })
}

unsafe extern "C" fn keep(target: *const raw::GpTarget, tensor: *const raw::GpTensor) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory, which is only read (seam.h).
    unsafe { with_view(target, tensor, Run::keep) }
}

unsafe extern "C" fn apply(target: *const raw::GpTarget, tensor: *const raw::GpTensor) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory that is its own to write (seam.h).
    unsafe { with_view(target, tensor, Run::apply) }
}

unsafe extern "C" fn apply_scalar(target: *const raw::GpTarget, number: *mut raw::GpScalar) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: target and number lent for this call.
        let (target, number) = unsafe { (&*target, &mut *number) };
        let mut scalar = match u32::from(number.tag) {
            raw::GP_BOOL => Scalar::Bool(number.i != 0),
            raw::GP_INT => Scalar::Int(number.i),
            _ => Scalar::Float(number.re),
        };
        let answer = thread::with_run(|run| run.apply_scalar(target.patch, &mut scalar));
        match scalar {
            Scalar::Bool(value) => number.i = value.into(),
            Scalar::Int(value) => number.i = value,
            Scalar::Float(value) => number.re = value,
        }
        answer.map_or(raw::GP_SKIPPED, verdict)
    })
}

unsafe extern "C" fn applied_elsewhere(
    target: *const raw::GpTarget,
    why: raw::GpStr,
    sizes: *const i64,
    rank: usize,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: all lent for this call.
        let (target, why) = unsafe { (&*target, text(why)) };
        // SAFETY: as above; a rank that is none stands for no shape.
        let sizes = (rank != usize::MAX).then(|| unsafe { array(sizes, rank) });
        thread::with_run(|run| run.applied_elsewhere(target.patch, why, sizes))
            .map_or(raw::GP_SKIPPED, verdict)
    })
}

/// The text stays as it is until the thread's run fails again; the adapter copies it before it calls again.
extern "C" fn failure() -> raw::GpStr {
    guard(raw::GpStr::default(), || {
        thread::with_run(|run| borrowed(run.failure())).unwrap_or_default()
    })
}

unsafe extern "C" fn note(note: raw::GpStr) {
    guard((), || {
        // SAFETY: the adapter lends the text for this call.
        session::note(unsafe { text(note) });
    });
}
