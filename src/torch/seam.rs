//! The Rust half of the seam: takes raw structs and makes safe calls of [`graphpatch_session`].
//!
//! Every function here is called by the adapter (see `seam.h` for the contract). A panic ends here: it
//! disables the library, and the program goes on.

mod apply;
mod calls;
mod definitions;
mod device;
mod flat;
mod guard;
mod held;
mod lent;
mod packages;
mod targets;
mod values;

use guard::guard;
use lent::text;

use super::seam_generated as raw;
use graphpatch_core::graph::inside::ATTENTION_VALUES;
use graphpatch_session::thread::ThreadView;
use graphpatch_session::{self as session, Wants};

/// The table that the adapter gets; lives as long as the process.
pub static CORE: Core = Core(raw::GpCore {
    version: raw::GP_SEAM_VERSION,
    size: size_of::<raw::GpCore>() as u32,
    active: session::ACTIVE.as_ptr().cast_const(),
    op_define: Some(definitions::op_define),
    op_exists: Some(definitions::op_exists),
    scope_define: Some(definitions::scope_define),
    scope_free: Some(definitions::scope_free),
    root_define: Some(definitions::root_define),
    root_free: Some(definitions::root_free),
    thread: Some(calls::this_thread),
    call_begin: Some(calls::call_begin),
    call_end: Some(calls::call_end),
    root_enter: Some(calls::root_enter),
    run_parameters: Some(calls::run_parameters),
    run_end: Some(calls::run_end),
    hold: Some(held::hold),
    function_begin: Some(calls::function_begin),
    function_end: Some(calls::function_end),
    scope_enter: Some(calls::scope_enter),
    scope_leave: Some(calls::scope_leave),
    scope_source: Some(calls::scope_source),
    operands: Some(values::operands),
    operand: Some(values::operand),
    parameter_targets: Some(values::parameter_targets),
    value_begin: Some(values::value_begin),
    value_args: Some(values::value_args),
    value_targets: Some(values::value_targets),
    targets_free: Some(targets::targets_free),
    value_items: Some(values::value_items),
    value_abandon: Some(values::value_abandon),
    apply: Some(apply::apply),
    keep_wanted: Some(apply::keep_wanted),
    keep: Some(apply::keep),
    apply_scalar: Some(apply::apply_scalar),
    applied_elsewhere: Some(apply::applied_elsewhere),
    failure: Some(apply::failure),
    note: Some(note),
    first_note: Some(first_note),
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
    tap: Some(values::tap),
    package_read: Some(packages::package_read),
    computed: Some(packages::computed),
    inner: Some(values::inner),
});

// The session's numbers must be those of the seam.
const _: () = {
    assert!(ATTENTION_VALUES.len() == raw::GP_ATTENTION_OUTPUT as usize + 1);
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
    assert!(size_of::<ThreadView>() == size_of::<raw::GpThread>());
    assert!(align_of::<ThreadView>() == align_of::<raw::GpThread>());
    macro_rules! same_place {
        ($($field:ident)*) => {
            $(assert!(std::mem::offset_of!(ThreadView, $field) == std::mem::offset_of!(raw::GpThread, $field));)*
        };
    }
    same_place!(run wants frame outer_wants outer_frame cold armed families scopes declined flat flat_now node held);
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

extern "C" fn first_note(about: u64) -> u32 {
    guard(0, || {
        let of_run = session::thread::with_run(|run| run.first_note(about)).unwrap_or(false);
        u32::from(session::first_note(about) || of_run)
    })
}

unsafe extern "C" fn note(note: raw::GpStr) {
    guard((), || {
        // SAFETY: the adapter lends the text for this call.
        let note = unsafe { text(note) };
        session::note(note);
        // The run may belong to a session that is not attached, as the runs of Python's PatchableGraph do.
        session::thread::with_run(|run| run.note(note));
    });
}
