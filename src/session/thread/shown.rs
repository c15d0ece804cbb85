//! What the adapter reads of a thread without a call.

use std::cell::Cell;

use crate::held::Address;

/// What the adapter reads of a thread, and only its state writes. `GpThread` in the seam.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Shown {
    /// 1: a run is open.
    pub run: Cell<u32>,
    /// [`Wants`] of the innermost scope; 0 before the root's code has begun.
    pub wants: Cell<u32>,
    /// Another number for every frame of the run.
    pub frame: Cell<u32>,
    /// The same of the scope around.
    pub outer_wants: Cell<u32>,
    pub outer_frame: Cell<u32>,
    /// Written by the adapter, too. 0: something is wanted of the innermost scope, or none is open. Otherwise 1 more than
    /// the number of scopes that are open below a scope of which nothing is wanted; these are counted without a call.
    pub cold: Cell<u32>,
    /// Operations of the innermost scope are to be intercepted.
    pub armed: Cell<u32>,
    /// Which operations of the innermost scope may have a name that matters: see [`crate::family_bit`].
    pub families: Cell<u64>,
    /// 1: inside a call of a root of which nothing is wanted.
    pub declined: Cell<u32>,
    /// 1: operations outside of other runs are in flat runs; 2: and one is open.
    pub flat: Cell<u32>,
    /// 1: the run is the flat one, for the time of one operation.
    pub flat_now: Cell<u32>,
    /// The node of the backward pass in which the run began, or 0.
    pub node: Cell<usize>,
    /// What the adapter keeps alive for the run.
    pub held: Cell<Address>,
}

impl Shown {
    /// No scope is open.
    pub(super) fn leave_scopes(&self) {
        for cell in [&self.wants, &self.outer_wants, &self.cold, &self.armed] {
            cell.set(0);
        }
        self.families.set(0);
    }

    /// No run is.
    pub(super) fn forget_run(&self) {
        self.leave_scopes();
        self.run.set(0);
        self.held.set(Address::NONE);
    }
}

thread_local! {
    /// Has no destructor, so the adapter may read it as long as the thread lives.
    pub(crate) static SHOWN: Shown = const {
        Shown {
            run: Cell::new(0),
            wants: Cell::new(0),
            frame: Cell::new(0),
            outer_wants: Cell::new(0),
            outer_frame: Cell::new(0),
            cold: Cell::new(0),
            armed: Cell::new(0),
            families: Cell::new(0),
            declined: Cell::new(0),
            flat: Cell::new(0),
            flat_now: Cell::new(0),
            node: Cell::new(0),
            held: Cell::new(Address::NONE),
        }
    };
}

/// What the adapter reads of this thread, valid as long as the thread lives.
pub fn shown() -> *const Shown {
    SHOWN.with(std::ptr::from_ref)
}
