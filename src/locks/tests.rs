//! Real forks of a process whose threads use locks all the time. Each test forks by hand, between the calls of the gate
//! that the library's fork handlers make.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Lazy, Mutex, RwLock, gate};

/// One test forks at a time: the fork of another test would change what this one observes.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Forks. The child runs `work` and exits with 0 if the answer was true, with 1 if not. Returns that exit code, or 9 if the
/// child hung.
fn forked(work: impl FnOnce(bool) -> bool) -> i32 {
    forked_after(|| (), work)
}

/// The same; `between` is called after this thread has waited for the others, and before it forks.
fn forked_after(between: impl FnOnce(), work: impl FnOnce(bool) -> bool) -> i32 {
    gate::before_fork();
    between();
    // SAFETY: the child calls only code that takes our own locks, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let quiet = gate::in_child();
        let code = i32::from(!work(quiet));
        // SAFETY: ends the child without the test harness.
        unsafe { libc::_exit(code) };
    }
    gate::in_parent();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut status = 0;
        // SAFETY: a child of ours that nobody else waits for.
        let done = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if done == child {
            return libc::WEXITSTATUS(status);
        }
        if Instant::now() > deadline {
            // SAFETY: as above.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            return 9;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_child_finds_every_lock_free_and_its_data_whole() {
    let _alone = ALONE.lock();
    static PAIR: Mutex<(u64, u64)> = Mutex::new((0, 0));
    static SHARED: RwLock<(u64, u64)> = RwLock::new((0, 0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut pair = PAIR.lock();
                    pair.0 += 1;
                    let shared = *SHARED.read();
                    assert_eq!(shared.0, shared.1);
                    std::hint::black_box(&pair);
                    pair.1 += 1;
                    drop(pair);
                    let mut shared = SHARED.write();
                    shared.0 += 1;
                    shared.1 += 1;
                }
            });
        }
        let ends: Vec<i32> = (0..200)
            .map(|_| {
                forked(|quiet| {
                    let (pair, shared) = (PAIR.lock(), SHARED.write());
                    quiet && pair.0 == pair.1 && shared.0 == shared.1
                })
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(ends, [0; 200]);
    });
}

#[test]
fn a_value_that_is_being_made_is_done_before_the_fork() {
    let _alone = ALONE.lock();
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static SLOW: Lazy<u32> = Lazy::new(|| {
        BEGUN.store(true, Ordering::Release);
        std::thread::sleep(Duration::from_millis(50));
        7
    });
    std::thread::scope(|scope| {
        scope.spawn(|| *SLOW);
        while !BEGUN.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(forked(|quiet| quiet && *SLOW == 7), 0);
    });
}

#[test]
fn a_thread_that_forks_under_a_lock_has_it_in_the_child() {
    let _alone = ALONE.lock();
    static HELD: Mutex<u32> = Mutex::new(1);
    let held = HELD.lock();
    let end = forked(|quiet| {
        let still = HELD.try_lock().is_none() && *held == 1;
        // SAFETY: this thread holds it, and `held` is not used any more.
        unsafe { HELD.force_unlock() };
        quiet && still && HELD.try_lock().is_some()
    });
    assert_eq!(end, 0);
    assert!(HELD.try_lock().is_none());
    drop(held);
    assert!(HELD.try_lock().is_some());
}

/// Another thread takes the lock, and holds it until `end` is set. Returns when it has the lock.
fn hold_until<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    held: &'static Mutex<()>,
    end: &'scope AtomicBool,
) {
    scope.spawn(|| {
        let _held = held.lock();
        while !end.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    });
    // The thread may have to lose its patience first.
    while !held.is_locked() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_waits_for_ever() {
    let _alone = ALONE.lock();
    static HELD: Mutex<()> = Mutex::new(());
    let forked_off = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The thread waits for something that only the forking thread can give.
        hold_until(scope, &HELD, &forked_off);
        let end = forked(|quiet| !quiet);
        forked_off.store(true, Ordering::Release);
        assert_eq!(end, 0, "the child knows that it must not use them");
    });
}

/// A thread that waits to enter loses its patience if forks follow each other closely, or if the machine is busy.
#[test]
fn a_child_knows_of_those_who_did_not_wait_for_the_fork() {
    let _alone = ALONE.lock();
    static HELD: Mutex<()> = Mutex::new(());
    let forked_off = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let enter_without_patience = || hold_until(scope, &HELD, &forked_off);
        let end = forked_after(enter_without_patience, |quiet| !quiet && HELD.is_locked());
        forked_off.store(true, Ordering::Release);
        assert_eq!(end, 0, "the child knows that somebody held a lock");
    });
    assert_eq!(
        forked(|quiet| quiet && !HELD.is_locked()),
        0,
        "the next fork is quiet"
    );
}
