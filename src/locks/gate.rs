//! The gate: it counts the threads that are inside, and a fork waits until there are none.
//!
//! A thread enters with its outermost lock and leaves when it gives that lock back. In between it takes further locks freely,
//! so a waiting fork never stops a thread that holds one lock and wants another. A thread that enters and a thread that forks
//! each write first and then read what the other has written, both sequentially consistent, so at least one of them sees the
//! other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a fork waits for the threads inside, and a thread for a fork. Both waits end in microseconds, unless a thread
/// inside waits for something that the forking thread holds. In that case the fork goes on after this time, and the child must
/// not use what the locks protect.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The counter is split, so that threads do not compete for one cache line.
const SHARDS: usize = 16;

#[repr(align(128))]
struct Shard(AtomicU32);

/// How many threads are inside.
static INSIDE: [Shard; SHARDS] = [const { Shard(AtomicU32::new(0)) }; SHARDS];
/// How many threads are about to fork: others do not enter.
static FORKING: AtomicU32 = AtomicU32::new(0);
/// How often a thread lost its patience and entered although somebody was about to fork.
static FORCED: AtomicU32 = AtomicU32::new(0);
/// The next shard to give to a thread.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many locks this thread holds or waits for, plus one while it forks. It has no destructor, so that it can be used
    /// until the thread ends.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// One more than the number of this thread's shard; 0: none yet.
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// Whether nobody was inside when this thread forked.
    static QUIET: Cell<bool> = const { Cell::new(true) };
    /// The value of [`FORCED`] when this thread began to fork. If it rises after that, a thread is inside that the fork may
    /// not have waited for.
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

/// Sleeps instead of waiting at a lock, which would be one more lock for a child to inherit.
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
    // If this thread forks while it holds a lock, it is inside itself, and holds that lock in the child as well.
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

/// After the fork, in the child. The answer is false if another thread was still inside: then nothing that the locks protect
/// may be used.
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
