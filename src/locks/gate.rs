//! The gate: who is inside is counted, and a fork waits until nobody is.
//!
//! A thread enters with its outermost lock and leaves with it; between, it passes freely, so that a thread that holds one
//! lock and wants another is never stopped by a fork that waits for it. Entering and forking each write first and then read
//! what the other has written, both sequentially consistent: one of them sees the other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a fork waits for the threads inside, and a thread for a fork. Both end in microseconds unless somebody inside
/// waits for what the forking thread holds. Then the fork goes on, and the child must not use what the locks protect.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Counters apart from each other, so that threads do not fight for one cache line.
const SHARDS: usize = 16;

#[repr(align(128))]
struct Shard(AtomicU32);

/// How many threads are inside.
static INSIDE: [Shard; SHARDS] = [const { Shard(AtomicU32::new(0)) }; SHARDS];
/// How many threads are about to fork: others do not enter.
static FORKING: AtomicU32 = AtomicU32::new(0);
/// How often a thread lost its patience and entered although somebody was about to fork.
static FORCED: AtomicU32 = AtomicU32::new(0);
/// Deals out the shards.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many locks this thread holds or waits for; and one while it forks. Without a destructor: usable until the end.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// One more than the number of this thread's shard; 0: none yet.
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// Whether nobody was inside when this thread forked.
    static QUIET: Cell<bool> = const { Cell::new(true) };
    /// [`FORCED`] when this thread began to fork: who forces their way in after that is not waited for.
    static FORCED_BEFORE: Cell<u32> = const { Cell::new(0) };
}

fn shard() -> &'static AtomicU32 {
    let mut number = SHARD.get();
    if number == 0 {
        number = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS + 1;
        SHARD.set(number);
    }
    &INSIDE[number - 1].0
}

/// This thread is about to take a lock. Every call is followed by one of [`leave`].
#[inline]
pub fn enter() {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    if depth == 0 {
        enter_first();
    }
}

/// This thread has given a lock back.
#[inline]
pub fn leave() {
    let depth = DEPTH.get() - 1;
    DEPTH.set(depth);
    if depth == 0 {
        shard().fetch_sub(1, Ordering::SeqCst);
    }
}

fn enter_first() {
    let shard = shard();
    shard.fetch_add(1, Ordering::SeqCst);
    if FORKING.load(Ordering::SeqCst) == 0 {
        return;
    }
    let begin = Instant::now();
    loop {
        shard.fetch_sub(1, Ordering::SeqCst);
        while FORKING.load(Ordering::SeqCst) != 0 && begin.elapsed() < PATIENCE {
            pause();
        }
        shard.fetch_add(1, Ordering::SeqCst);
        if FORKING.load(Ordering::SeqCst) == 0 {
            return;
        }
        if begin.elapsed() >= PATIENCE {
            FORCED.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

/// No lock to wait with: it would be one more that a child inherits.
fn pause() {
    std::thread::sleep(Duration::from_micros(20));
}

/// While it lives, this thread is inside: for locks that are not ours, such as the dynamic linker's.
pub struct Inside(std::marker::PhantomData<*const ()>);

impl Inside {
    pub fn new() -> Inside {
        enter();
        Inside(std::marker::PhantomData)
    }
}

impl Default for Inside {
    fn default() -> Self {
        Inside::new()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        leave();
    }
}

/// Before a fork, on the forking thread: nobody enters any more, and everybody inside has left when this returns.
pub fn before_fork() {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    FORKING.fetch_add(1, Ordering::SeqCst);
    FORCED_BEFORE.set(FORCED.load(Ordering::SeqCst));
    // A thread that forks while it holds a lock has it in the child as well.
    let own = u32::from(depth > 0);
    let inside = || {
        INSIDE
            .iter()
            .map(|s| s.0.load(Ordering::SeqCst))
            .sum::<u32>()
    };
    let begin = Instant::now();
    let mut quiet = inside() == own;
    while !quiet && begin.elapsed() < PATIENCE {
        pause();
        quiet = inside() == own;
    }
    QUIET.set(quiet);
}

/// After the fork, in the parent.
pub fn in_parent() {
    DEPTH.set(DEPTH.get() - 1);
    FORKING.fetch_sub(1, Ordering::SeqCst);
}

/// After the fork, in the child. False where somebody was still inside: what the locks protect must not be used then.
#[must_use]
pub fn in_child() -> bool {
    let depth = DEPTH.get() - 1;
    DEPTH.set(depth);
    for shard in &INSIDE {
        shard.0.store(0, Ordering::SeqCst);
    }
    if depth > 0 {
        shard().store(1, Ordering::SeqCst);
    }
    FORKING.store(0, Ordering::SeqCst);
    QUIET.get() && FORCED.load(Ordering::SeqCst) == FORCED_BEFORE.get()
}
