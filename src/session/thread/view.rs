//! The part of a thread's state that the adapter reads without a call.

use std::cell::Cell;

use crate::held::Address;

/// The part of a thread's state that the adapter reads. Only the thread's state writes it, except where the adapter enters a scope of which
/// nothing is wanted. It is `GpThread` in the seam.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ThreadView {
    /// 1: a run is open.
    pub run: Cell<u32>,
    /// [`Wants`] of the innermost scope; 0 before the root's code has begun.
    pub wants: Cell<u32>,
    /// A number that no other frame of the run has.
    pub frame: Cell<u32>,
    /// The same for the scope around the innermost one.
    pub outer_wants: Cell<u32>,
    pub outer_frame: Cell<u32>,
    /// The adapter writes this one, too. 0: something is wanted of the innermost scope, or no scope is open. Otherwise: how many
    /// scopes are open of which nothing is wanted. All but the first are counted without a call.
    pub cold: Cell<u32>,
    /// 1: operations of the innermost scope are to be intercepted.
    pub armed: Cell<u32>,
    /// Which operations of the innermost scope may have a name that matters: see [`crate::family_bit`].
    pub families: Cell<u64>,
    /// The same for scopes that are called in it. Nothing is wanted of a scope whose bit is not among these.
    pub scopes: Cell<u64>,
    /// How many calls of roots are open of which nothing is wanted.
    pub declined: Cell<u32>,
    /// 1: operations that are in no other run belong to flat runs; 2: the same, and a flat run is open.
    pub flat: Cell<u32>,
    /// 1: the run is the flat one, for the time of one operation.
    pub flat_now: Cell<u32>,
    /// The node of the backward pass in which the run began, or 0.
    pub node: Cell<usize>,
    /// What the adapter keeps alive for the run.
    pub held: Cell<Address>,
}

impl ThreadView {
    /// Shows that no scope is open.
    pub(super) fn leave_scopes(&self) {
        for cell in [&self.wants, &self.outer_wants, &self.cold, &self.armed] {
            cell.set(0);
        }
        self.families.set(0);
        self.scopes.set(0);
    }

    /// Shows that no run is open.
    pub(super) fn forget_run(&self) {
        self.leave_scopes();
        self.run.set(0);
        self.held.set(Address::NONE);
    }
}

thread_local! {
    /// This has no destructor, so the adapter may read it as long as the thread lives.
    pub(crate) static VIEW: ThreadView = const {
        ThreadView {
            run: Cell::new(0),
            wants: Cell::new(0),
            frame: Cell::new(0),
            outer_wants: Cell::new(0),
            outer_frame: Cell::new(0),
            cold: Cell::new(0),
            armed: Cell::new(0),
            families: Cell::new(0),
            scopes: Cell::new(0),
            declined: Cell::new(0),
            flat: Cell::new(0),
            flat_now: Cell::new(0),
            node: Cell::new(0),
            held: Cell::new(Address::NONE),
        }
    };
}

/// What the adapter reads of this thread, valid as long as the thread lives.
pub fn view() -> *const ThreadView {
    VIEW.with(std::ptr::from_ref)
}
