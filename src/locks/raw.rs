//! `parking_lot`'s locks behind the gate.

use parking_lot::lock_api::{self, GuardNoSend};

use crate::gate;

/// A mutex whose holder is inside the gate.
pub struct RawMutex(parking_lot::RawMutex);

// SAFETY: `parking_lot`'s own lock and unlock; the gate adds nothing that could let two threads in.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait's way to make one"
    )]
    const INIT: RawMutex = RawMutex(<parking_lot::RawMutex as lock_api::RawMutex>::INIT);
    // The gate counts by thread, so a guard must be dropped by the thread that took the lock.
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        gate::enter();
        lock_api::RawMutex::lock(&self.0);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        gate::enter();
        let locked = lock_api::RawMutex::try_lock(&self.0);
        if !locked {
            gate::leave();
        }
        locked
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: by this function's contract.
        unsafe { lock_api::RawMutex::unlock(&self.0) };
        gate::leave();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        lock_api::RawMutex::is_locked(&self.0)
    }
}

// SAFETY: as above.
unsafe impl lock_api::RawMutexTimed for RawMutex {
    type Duration = std::time::Duration;
    type Instant = std::time::Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Self::Duration) -> bool {
        gate::enter();
        let locked = lock_api::RawMutexTimed::try_lock_for(&self.0, timeout);
        if !locked {
            gate::leave();
        }
        locked
    }

    #[inline]
    fn try_lock_until(&self, timeout: Self::Instant) -> bool {
        gate::enter();
        let locked = lock_api::RawMutexTimed::try_lock_until(&self.0, timeout);
        if !locked {
            gate::leave();
        }
        locked
    }
}

/// A readers-writer lock whose holders are inside the gate.
pub struct RawRwLock(parking_lot::RawRwLock);

// SAFETY: as above.
unsafe impl lock_api::RawRwLock for RawRwLock {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait's way to make one"
    )]
    const INIT: RawRwLock = RawRwLock(<parking_lot::RawRwLock as lock_api::RawRwLock>::INIT);
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        gate::enter();
        lock_api::RawRwLock::lock_shared(&self.0);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        gate::enter();
        let locked = lock_api::RawRwLock::try_lock_shared(&self.0);
        if !locked {
            gate::leave();
        }
        locked
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: by this function's contract.
        unsafe { lock_api::RawRwLock::unlock_shared(&self.0) };
        gate::leave();
    }

    #[inline]
    fn lock_exclusive(&self) {
        gate::enter();
        lock_api::RawRwLock::lock_exclusive(&self.0);
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        gate::enter();
        let locked = lock_api::RawRwLock::try_lock_exclusive(&self.0);
        if !locked {
            gate::leave();
        }
        locked
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: by this function's contract.
        unsafe { lock_api::RawRwLock::unlock_exclusive(&self.0) };
        gate::leave();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        lock_api::RawRwLock::is_locked(&self.0)
    }
}
