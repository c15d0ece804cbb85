//! The core's side of the seam: raw structs in, safe calls of [`graphpatch_session`] out.
//!
//! Every function here is called by the adapter (see `seam.h` for the contract). A panic ends at this edge: it
//! disables the library and the host goes on.

mod device;
mod flat;
mod lent;
mod targets;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use lent::{array, borrowed, elements, frames, text, view};
use targets::{Targets, give_targets};

use super::seam_generated as raw;
use graphpatch_apply::{Scalar, View};
use graphpatch_session::Verdict;
use graphpatch_session::run::{Interest, Snapshot, Wanted};
use graphpatch_session::{self as session, Root, Run, Scope, Session, ValueKind, ops};

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
    run_begin: Some(run_begin),
    run_parameters: Some(run_parameters),
    run_end: Some(run_end),
    run_snapshot: Some(run_snapshot),
    run_resume: Some(run_resume),
    scope_enter: Some(scope_enter),
    scope_leave: Some(scope_leave),
    scope_source: Some(scope_source),
    operands: Some(operands),
    parameter_targets: Some(parameter_targets),
    value_begin: Some(value_begin),
    value_args: Some(value_args),
    value_targets: Some(value_targets),
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
    flat_begin: Some(flat::flat_begin),
    flat_next: Some(flat::flat_next),
    flat_root: Some(flat::flat_root),
    lock_enter: Some(lock_enter),
    lock_leave: Some(lock_leave),
});

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

/// A run together with the C arrays that were made for it.
struct SeamRun {
    run: Run,
    targets: FxHashMap<u32, Targets>,
}

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

/// The run behind a handle.
///
/// # Safety
///
/// `run` came from `run_begin`, was not ended, and is used by its own thread alone.
unsafe fn seam_run<'a>(run: *mut raw::GpRun) -> Option<&'a mut SeamRun> {
    // SAFETY: by this function's contract.
    unsafe { run.cast::<SeamRun>().as_mut() }
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

fn frame_flags(interest: Interest) -> u32 {
    let mut flags = 0;
    for (set, flag) in [
        (interest.arm, raw::GP_FRAME_ARM),
        (interest.cold, raw::GP_FRAME_COLD),
        (interest.operands, raw::GP_FRAME_OPERANDS),
        (interest.parameters, raw::GP_FRAME_PARAMETERS),
        (interest.inputs, raw::GP_FRAME_INPUTS),
        (interest.output, raw::GP_FRAME_OUTPUT),
        (interest.record, raw::GP_FRAME_RECORD),
        (interest.ignored, raw::GP_FRAME_IGNORED),
        (!interest.cold, raw::GP_FRAME_INSIDE),
        (interest.source, raw::GP_FRAME_SOURCE),
    ] {
        if set {
            flags |= flag;
        }
    }
    // Numbers from 1 on, as far as they fit; 0 is none.
    let site = interest.site.map_or(0, |site| site + 1);
    if site < 1 << (32 - raw::GP_FRAME_SITE_SHIFT) {
        flags |= site << raw::GP_FRAME_SITE_SHIFT;
    }
    flags
}

/// Hands a run over to the adapter.
///
/// # Safety
///
/// `opened` may be written.
unsafe fn hand_over(run: Run, interest: Interest, opened: *mut raw::GpOpened) -> *mut raw::GpRun {
    let answer = raw::GpOpened {
        plan: run.plan().map_or(0, |plan| plan.serial),
        flags: frame_flags(interest),
    };
    // SAFETY: by this function's contract.
    unsafe { *opened = answer };
    let targets = FxHashMap::default();
    Box::into_raw(Box::new(SeamRun { run, targets })).cast()
}

unsafe extern "C" fn run_begin(
    root: *mut raw::GpRoot,
    session: *const c_void,
    opened: *mut raw::GpOpened,
) -> *mut raw::GpRun {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the handles are `root_define`'s or manual.rs's, and alive; `opened` is a place for the answer.
        unsafe {
            let root = share(root.cast::<Root>().cast_const());
            let begun = match session.is_null() {
                true => Run::begin(root),
                false => Run::begin_for(share(session.cast::<Session>()), root),
            };
            match begun {
                Some((run, interest)) => hand_over(run, interest, opened),
                None => std::ptr::null_mut(),
            }
        }
    })
}

unsafe extern "C" fn run_snapshot(run: *mut raw::GpRun) -> *mut c_void {
    guard(std::ptr::null_mut(), || {
        // SAFETY: a live run on its own thread.
        let snapshot = unsafe { seam_run(run) }.map(|run| run.run.snapshot());
        snapshot.map_or(std::ptr::null_mut(), |snapshot| {
            Arc::into_raw(Arc::new(snapshot)).cast_mut().cast()
        })
    })
}

unsafe extern "C" fn run_resume(
    snapshot: *const c_void,
    record: u32,
    opened: *mut raw::GpOpened,
) -> *mut raw::GpRun {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the handle is `run_snapshot`'s, alive for this call; `opened` is a place for the answer.
        unsafe {
            match Run::resume(&*snapshot.cast::<Snapshot>(), record != 0) {
                Some((run, interest)) => hand_over(run, interest, opened),
                None => std::ptr::null_mut(),
            }
        }
    })
}

unsafe extern "C" fn run_parameters(
    run: *mut raw::GpRun,
    identities: *const *const c_void,
    n: usize,
) {
    guard((), || {
        // SAFETY: a live run on its own thread; the array is lent for this call.
        let (run, identities) = unsafe { (seam_run(run), array(identities, n)) };
        if let Some(run) = run {
            run.run
                .set_parameters(identities.iter().map(|identity| identity.addr()));
        }
    });
}

unsafe extern "C" fn run_end(run: *mut raw::GpRun) {
    if !run.is_null() {
        guard((), || {
            // SAFETY: the box that `run_begin` handed over, given back once.
            unsafe { Box::from_raw(run.cast::<SeamRun>()) }.run.end()
        });
    }
}

unsafe extern "C" fn scope_enter(run: *mut raw::GpRun, scope: *mut raw::GpScope) -> u32 {
    guard(raw::GP_FRAME_COLD, || {
        // SAFETY: a live run on its own thread, and a live scope.
        let (run, scope) = unsafe { (seam_run(run), share(scope.cast::<Scope>().cast_const())) };
        run.map_or(raw::GP_FRAME_COLD, |run| frame_flags(run.run.enter(scope)))
    })
}

unsafe extern "C" fn scope_leave(run: *mut raw::GpRun) -> u32 {
    guard(0, || {
        // SAFETY: a live run on its own thread.
        unsafe { seam_run(run) }.map_or(0, |run| frame_flags(run.run.leave()))
    })
}

unsafe extern "C" fn scope_source(run: *mut raw::GpRun, source: *const raw::GpFrame, n: usize) {
    guard((), || {
        // SAFETY: a live run on its own thread; frames lent for this call.
        let (run, source) = unsafe { (seam_run(run), frames(source, n)) };
        if let Some(run) = run {
            run.run.called_from(source);
        }
    });
}

unsafe extern "C" fn operands(
    run: *mut raw::GpRun,
    level: u32,
    items: *const raw::GpItem,
    n: usize,
    replace: *mut u8,
) {
    guard((), || {
        // SAFETY: a live run on its own thread; items lent for this call.
        let (run, tensors) = unsafe { (seam_run(run), elements(items, n)) };
        if let Some(run) = run {
            run.run.operands(level as usize, &tensors, |index| {
                // SAFETY: `replace` has `n` places and `index` is one of them.
                unsafe { *replace.add(index) = 1 }
            });
        }
    });
}

unsafe extern "C" fn parameter_targets(
    run: *mut raw::GpRun,
    level: u32,
    identity: *const c_void,
    out: *mut *const raw::GpTarget,
) -> usize {
    guard(0, || {
        // SAFETY: a live run on its own thread; `out` is a place for the answer.
        let Some(run) = (unsafe { seam_run(run) }) else {
            return 0;
        };
        let site = run.run.parameter_site(level as usize, identity.addr());
        // SAFETY: as above.
        unsafe { give_targets(run, site, out) }
    })
}

fn value_kind(kind: u32, id: u32) -> ValueKind {
    match kind {
        raw::GP_VALUE_INPUT => ValueKind::Input(id),
        raw::GP_VALUE_OUTPUT => ValueKind::Output,
        _ => ValueKind::Op(id),
    }
}

unsafe extern "C" fn value_begin(run: *mut raw::GpRun, kind: u32, id: u32) -> u32 {
    guard(0, || {
        // SAFETY: a live run on its own thread.
        let Some(run) = (unsafe { seam_run(run) }) else {
            return 0;
        };
        let wanted: Wanted = run.run.value_begin(value_kind(kind, id));
        (u32::from(wanted.elements) * raw::GP_VALUE_ITEMS)
            | (u32::from(wanted.targets) * raw::GP_VALUE_TARGETS)
            | (u32::from(wanted.args) * raw::GP_VALUE_ARGS)
    })
}

unsafe extern "C" fn value_args(
    run: *mut raw::GpRun,
    items: *const raw::GpItem,
    n: usize,
    source: *const raw::GpFrame,
    n_source: usize,
) {
    guard((), || {
        // SAFETY: a live run on its own thread; items and frames lent for this call.
        let (run, given, source) =
            unsafe { (seam_run(run), elements(items, n), frames(source, n_source)) };
        if let Some(run) = run {
            run.run.args(&given, source);
        }
    });
}

unsafe extern "C" fn value_targets(run: *mut raw::GpRun, out: *mut *const raw::GpTarget) -> usize {
    guard(0, || {
        // SAFETY: a live run on its own thread; `out` is a place for the answer.
        let Some(run) = (unsafe { seam_run(run) }) else {
            return 0;
        };
        let site = run.run.value_site();
        // SAFETY: as above.
        unsafe { give_targets(run, site, out) }
    })
}

unsafe extern "C" fn value_items(run: *mut raw::GpRun, items: *const raw::GpItem, n: usize) {
    guard((), || {
        // SAFETY: a live run on its own thread; items lent for this call.
        let (run, value) = unsafe { (seam_run(run), elements(items, n)) };
        if let Some(run) = run {
            run.run.value(&value);
        }
    });
}

unsafe extern "C" fn value_abandon(run: *mut raw::GpRun) {
    guard((), || {
        // SAFETY: a live run on its own thread.
        if let Some(run) = unsafe { seam_run(run) } {
            run.run.abandon();
        }
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

unsafe extern "C" fn keep_wanted(run: *mut raw::GpRun, target: *const raw::GpTarget) -> u32 {
    guard(0, || {
        // SAFETY: a live run on its own thread; the target lent for this call.
        let (run, target) = unsafe { (seam_run(run), &*target) };
        run.is_some_and(|run| run.run.keep_wanted(target.patch))
            .into()
    })
}

/// Shows a run the tensor that the adapter lends.
///
/// # Safety
///
/// A live run on its own thread; target and tensor are as `seam.h` says, and the tensor's memory is this call's alone.
unsafe fn with_view(
    run: *mut raw::GpRun,
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
    act: impl FnOnce(&mut Run, u32, &View<'_>) -> Verdict,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: by this function's contract.
        let (run, target, view) = unsafe { (seam_run(run), &*target, view(&*tensor)) };
        match (run, view) {
            (Some(run), Some(view)) => verdict(act(&mut run.run, target.patch, &view)),
            _ => raw::GP_ELSEWHERE,
        }
    })
}

unsafe extern "C" fn keep(
    run: *mut raw::GpRun,
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory, which is only read (seam.h).
    unsafe { with_view(run, target, tensor, Run::keep) }
}

unsafe extern "C" fn apply(
    run: *mut raw::GpRun,
    target: *const raw::GpTarget,
    tensor: *const raw::GpTensor,
) -> u32 {
    // SAFETY: the adapter hands over plain strided CPU memory that is its own to write (seam.h).
    unsafe { with_view(run, target, tensor, Run::apply) }
}

unsafe extern "C" fn apply_scalar(
    run: *mut raw::GpRun,
    target: *const raw::GpTarget,
    number: *mut raw::GpScalar,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: a live run on its own thread; target and number lent for this call.
        let (run, target, number) = unsafe { (seam_run(run), &*target, &mut *number) };
        let Some(run) = run else {
            return raw::GP_SKIPPED;
        };
        let mut scalar = match u32::from(number.tag) {
            raw::GP_BOOL => Scalar::Bool(number.i != 0),
            raw::GP_INT => Scalar::Int(number.i),
            _ => Scalar::Float(number.re),
        };
        let answer = run.run.apply_scalar(target.patch, &mut scalar);
        match scalar {
            Scalar::Bool(value) => number.i = value.into(),
            Scalar::Int(value) => number.i = value,
            Scalar::Float(value) => number.re = value,
        }
        verdict(answer)
    })
}

unsafe extern "C" fn applied_elsewhere(
    run: *mut raw::GpRun,
    target: *const raw::GpTarget,
    why: raw::GpStr,
    sizes: *const i64,
    rank: usize,
) -> u32 {
    guard(raw::GP_SKIPPED, || {
        // SAFETY: a live run on its own thread; all else lent for this call.
        let (run, target, why) = unsafe { (seam_run(run), &*target, text(why)) };
        // SAFETY: as above; a rank that is none stands for no shape.
        let sizes = (rank != usize::MAX).then(|| unsafe { array(sizes, rank) });
        run.map_or(raw::GP_SKIPPED, |run| {
            verdict(run.run.applied_elsewhere(target.patch, why, sizes))
        })
    })
}

unsafe extern "C" fn failure(run: *mut raw::GpRun) -> raw::GpStr {
    // SAFETY: a live run on its own thread; the adapter copies the text before it calls again.
    guard(raw::GpStr::default(), || match unsafe { seam_run(run) } {
        Some(run) => borrowed(run.run.failure()),
        None => raw::GpStr::default(),
    })
}

unsafe extern "C" fn note(note: raw::GpStr) {
    guard((), || {
        // SAFETY: the adapter lends the text for this call.
        session::note(unsafe { text(note) });
    });
}
