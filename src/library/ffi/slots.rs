//! The table behind the pointers that C holds: which object a pointer stands for, and whether it still does.
//!
//! A pointer that we hand out is no address. It is a number made of a mark, the object's type, a place in this table, and the
//! generation of that place: how often it was used before. The table itself is never freed. So a pointer to an object that was
//! freed, to one of another type, or that never came from us is told apart without looking where it points.
//!
//! A call pins its objects until it returns. An object that is freed meanwhile lives until its last pin is taken away, and the
//! call that does so drops it. No call waits for another and there is no lock, so a fork needs no care. A thread of the parent
//! may have had an object pinned, which the child inherits without the thread. Then the child's calls are refused, or the
//! object is never dropped; but it is never used half-changed.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The type of an object, as its pointer says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Session = 1,
    Graphs,
    Spec,
    Value,
    Root,
    Scope,
    Snapshot,
    Frames,
    Aside,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Session,
        Kind::Graphs,
        Kind::Spec,
        Kind::Value,
        Kind::Root,
        Kind::Scope,
        Kind::Snapshot,
        Kind::Frames,
        Kind::Aside,
    ];

    /// The type's name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Session => "gp_session",
            Kind::Graphs => "gp_graphs",
            Kind::Spec => "gp_spec",
            Kind::Value => "gp_value",
            Kind::Root => "gp_root",
            Kind::Scope => "gp_scope",
            Kind::Snapshot => "gp_snapshot",
            Kind::Frames => "gp_frames",
            Kind::Aside => "gp_aside",
        }
    }
}

/// Why a pointer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It never came from this library.
    Foreign,
    /// It is a pointer to an object of this type.
    IsA(Kind),
    /// Its object was freed.
    Freed,
    /// Another call uses the object, and one of the two needs it alone.
    InUse,
}

// A pointer: 0, seven bits of the mark, four of the type, 24 of the generation, 25 of the place, and three zeros, as if it were
// aligned. No address of a program has such a mark: those bits are 0 there.
const PLACE_BITS: u32 = 25;
const GENERATION_BITS: u32 = 24;
const KIND_BITS: u32 = 4;
const PLACE_SHIFT: u32 = 3;
const KEY_SHIFT: u32 = PLACE_SHIFT + PLACE_BITS;
const MARK_SHIFT: u32 = KEY_SHIFT + GENERATION_BITS + KIND_BITS;
const MARK: u64 = 0x47;
const LAST_GENERATION: u64 = (1 << GENERATION_BITS) - 1;
const _: () = assert!(MARK_SHIFT == 56 && size_of::<usize>() == 8);

// A slot's state: how often it is pinned, two flags, and above them the type (0: no object) and the generation, together the key.
const PINS: u64 = (1 << 32) - 1;
const ALONE: u64 = 1 << 32;
const FREED: u64 = 1 << 33;
const STATE_KEY_SHIFT: u32 = 36;

fn key(generation: u64, kind: u64) -> u64 {
    kind << GENERATION_BITS | generation
}

fn key_of_state(state: u64) -> u64 {
    state >> STATE_KEY_SHIFT
}

fn generation_of(key: u64) -> u64 {
    key & LAST_GENERATION
}

/// A place for an object. It has a cache line of its own, so that threads with different objects do not slow each other down.
#[repr(align(64))]
struct Slot {
    state: AtomicU64,
    value: AtomicPtr<()>,
    /// One more than the next free place; 0: none.
    next: AtomicU32,
}

const FIRST_SEGMENT: usize = 64;
const SEGMENTS: usize = (PLACE_BITS - FIRST_SEGMENT.ilog2()) as usize;
/// Each segment is twice as long as the one before it.
static TABLE: [AtomicPtr<Slot>; SEGMENTS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; SEGMENTS];
/// How many places were ever used.
static USED: AtomicU32 = AtomicU32::new(0);
/// The list of free places. Lower half: one more than the number of the first one. Upper half: how often this has changed,
/// so that a thread notices when another one took a place and gave it back.
static FREE: AtomicU64 = AtomicU64::new(0);

/// The last segment ends where the numbers do.
const MOST: u32 = (FIRST_SEGMENT as u32) * ((1 << SEGMENTS) - 1);

/// In which segment a place lies, and where there.
fn segment(place: u32) -> (usize, usize) {
    let from_start = place as usize + FIRST_SEGMENT;
    let segment = (from_start / FIRST_SEGMENT).ilog2() as usize;
    (segment, from_start - (FIRST_SEGMENT << segment))
}

/// The slot of a place, if there ever was one.
fn slot(place: u32) -> Option<&'static Slot> {
    let (segment, at) = segment(place);
    let first = TABLE.get(segment)?.load(Ordering::Acquire);
    // SAFETY: a segment has so many slots, which are never freed.
    (!first.is_null()).then(|| unsafe { &*first.add(at) })
}

/// The slot of a new place, whose segment is made if need be. `None` without memory.
fn new_slot(place: u32) -> Option<&'static Slot> {
    let (segment, _) = segment(place);
    let entry = TABLE.get(segment)?;
    if entry.load(Ordering::Acquire).is_null() {
        let layout = Layout::array::<Slot>(FIRST_SEGMENT << segment).ok()?;
        // SAFETY: the layout has a size; zeros are a slot without an object.
        let made = unsafe { alloc_zeroed(layout) }.cast::<Slot>();
        if made.is_null() {
            return None;
        }
        let first = entry.compare_exchange(
            std::ptr::null_mut(),
            made,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if first.is_err() {
            // SAFETY: another thread was first; nobody has seen this one.
            unsafe { dealloc(made.cast(), layout) };
        }
    }
    slot(place)
}

/// A place that no object has.
fn unused() -> Option<(u32, &'static Slot)> {
    let mut free = FREE.load(Ordering::Acquire);
    while let Some(place) = ((free & PINS) as u32).checked_sub(1) {
        let slot = slot(place)?;
        let next = u64::from(slot.next.load(Ordering::Relaxed));
        let changed = ((free >> 32) + 1) << 32;
        match FREE.compare_exchange_weak(free, changed | next, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => return Some((place, slot)),
            Err(now) => free = now,
        }
    }
    let next = |used: u32| (used < MOST).then(|| used + 1);
    let place = USED
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        .ok()?;
    Some((place, new_slot(place)?))
}

/// An object enters the table. The pointer for C; `None` where there is no memory for one more.
pub(super) fn enter(kind: Kind, value: *mut ()) -> Option<usize> {
    let (place, slot) = unused()?;
    let generation = generation_of(key_of_state(slot.state.load(Ordering::Relaxed)));
    let key = key(generation, kind as u64);
    slot.value.store(value, Ordering::Relaxed);
    slot.state.store(key << STATE_KEY_SHIFT, Ordering::Release);
    let number = MARK << MARK_SHIFT | key << KEY_SHIFT | u64::from(place) << PLACE_SHIFT;
    Some(number as usize)
}

/// What the number in a pointer stands for: its slot, its place and its key.
fn read(pointer: usize, kind: Kind) -> Result<(&'static Slot, u32, u64), Refusal> {
    let number = pointer as u64;
    let place = ((number >> PLACE_SHIFT) & ((1 << PLACE_BITS) - 1)) as u32;
    let key = (number >> KEY_SHIFT) & ((1 << (GENERATION_BITS + KIND_BITS)) - 1);
    let aligned = number & ((1 << PLACE_SHIFT) - 1) == 0;
    if number >> MARK_SHIFT != MARK || !aligned {
        return Err(Refusal::Foreign);
    }
    let said = Kind::ALL
        .into_iter()
        .find(|each| *each as u64 == key >> GENERATION_BITS);
    match said.ok_or(Refusal::Foreign)? {
        said if said != kind => Err(Refusal::IsA(said)),
        _ if place >= USED.load(Ordering::Relaxed) => Err(Refusal::Foreign),
        _ => Ok((slot(place).ok_or(Refusal::Foreign)?, place, key)),
    }
}

/// Whether the slot's state is one of an object that this key may use.
fn check(state: u64, key: u64) -> Result<(), Refusal> {
    match key_of_state(state) == key {
        true if state & FREED == 0 => Ok(()),
        // The place has not had this generation yet, so the pointer did not come from this library.
        false if generation_of(key) > generation_of(key_of_state(state)) => Err(Refusal::Foreign),
        _ => Err(Refusal::Freed),
    }
}

/// An object that is not ended while this lives.
#[derive(Debug)]
pub(super) struct Pin {
    slot: &'static Slot,
    place: u32,
    /// What the pin has added to the state.
    added: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slot {:x}", self.state.load(Ordering::Relaxed))
    }
}

impl Pin {
    /// The object that [`enter`] was given.
    pub fn value(&self) -> *mut () {
        self.slot.value.load(Ordering::Relaxed)
    }

    /// Takes the pin away. `Some`: the object was freed and has no other pin; the caller ends it.
    #[must_use]
    pub fn end(&self) -> Option<*mut ()> {
        let before = self.slot.state.fetch_sub(self.added, Ordering::AcqRel);
        let last = before & FREED != 0 && before & PINS == 1;
        last.then(|| reclaim(self.slot, self.place))
    }
}

/// Pins an object beside others; `alone`, where nobody else has it pinned.
pub(super) fn pin(pointer: usize, kind: Kind, alone: bool) -> Result<Pin, Refusal> {
    let (slot, place, key) = read(pointer, kind)?;
    let (added, hinders) = match alone {
        true => (ALONE | 1, PINS),
        false => (1, ALONE),
    };
    let mut state = slot.state.load(Ordering::Relaxed);
    loop {
        check(state, key)?;
        if state & hinders != 0 {
            return Err(Refusal::InUse);
        }
        let now = state + added;
        match slot
            .state
            .compare_exchange_weak(state, now, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => return Ok(Pin { slot, place, added }),
            Err(now) => state = now,
        }
    }
}

/// Frees an object: its pointer is refused from now on. `Some`: nobody has it pinned, and the caller ends it.
pub(super) fn free(pointer: usize, kind: Kind) -> Result<Option<*mut ()>, Refusal> {
    let (slot, place, key) = read(pointer, kind)?;
    let mut state = slot.state.load(Ordering::Relaxed);
    loop {
        check(state, key)?;
        match slot.state.compare_exchange_weak(
            state,
            state | FREED,
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            Ok(_) => return Ok((state & PINS == 0).then(|| reclaim(slot, place))),
            Err(now) => state = now,
        }
    }
}

/// Empties a slot whose object nobody can reach any more, and answers the object. A place whose generations are used up stays empty.
fn reclaim(slot: &Slot, place: u32) -> *mut () {
    let value = slot.value.load(Ordering::Relaxed);
    let generation = generation_of(key_of_state(slot.state.load(Ordering::Relaxed))) + 1;
    if generation > LAST_GENERATION {
        return value;
    }
    slot.state
        .store(key(generation, 0) << STATE_KEY_SHIFT, Ordering::Release);
    let mut free = FREE.load(Ordering::Relaxed);
    loop {
        slot.next.store((free & PINS) as u32, Ordering::Relaxed);
        let changed = (((free >> 32) + 1) << 32) | u64::from(place + 1);
        match FREE.compare_exchange_weak(free, changed, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return value,
            Err(now) => free = now,
        }
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
