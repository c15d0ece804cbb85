//! The table alone: what each kind of wrong pointer gets, and threads that use and free one object at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// An object of these tests. Each drop of it is counted.
fn object(ended: &'static AtomicUsize) -> *mut () {
    Box::into_raw(Box::new(ended)).cast()
}

fn end(value: Option<*mut ()>) {
    if let Some(value) = value {
        // SAFETY: the table answers each object once.
        let counter = unsafe { Box::from_raw(value.cast::<&'static AtomicUsize>()) };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> &'static AtomicUsize {
    Box::leak(Box::new(AtomicUsize::new(0)))
}

#[test]
fn a_pointer_serves_until_its_object_is_freed() {
    let ended = counter();
    let pointer = enter(Kind::Spec, object(ended)).unwrap();
    let pin_one = pin(pointer, Kind::Spec, false).unwrap();
    end(pin_one.end());
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    end(free(pointer, Kind::Spec).unwrap());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(pin(pointer, Kind::Spec, false).unwrap_err(), Refusal::Freed);
    assert_eq!(free(pointer, Kind::Spec).unwrap_err(), Refusal::Freed);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[test]
fn a_place_that_is_used_again_does_not_serve_the_old_pointer() {
    let ended = counter();
    let old = enter(Kind::Value, object(ended)).unwrap();
    end(free(old, Kind::Value).unwrap());
    // Other tests may take the freed place first, so many objects are made: one of them gets it.
    let new: Vec<usize> = (0..200)
        .map(|_| enter(Kind::Value, object(ended)).unwrap())
        .collect();
    assert!(!new.contains(&old));
    assert_eq!(pin(old, Kind::Value, false).unwrap_err(), Refusal::Freed);
    assert_eq!(free(old, Kind::Value).unwrap_err(), Refusal::Freed);
    for pointer in new {
        end(free(pointer, Kind::Value).unwrap());
    }
    assert_eq!(ended.load(Ordering::SeqCst), 201);
}

#[test]
fn another_types_pointer_is_named() {
    let ended = counter();
    let pointer = enter(Kind::Scope, object(ended)).unwrap();
    let is_a_scope = Refusal::IsA(Kind::Scope);
    assert_eq!(pin(pointer, Kind::Root, true).unwrap_err(), is_a_scope);
    assert_eq!(free(pointer, Kind::Root).unwrap_err(), is_a_scope);
    end(free(pointer, Kind::Scope).unwrap());
}

#[test]
fn what_never_came_from_here_is_refused() {
    let ended = counter();
    let pointer = enter(Kind::Graphs, object(ended)).unwrap();
    let on_the_stack = 0_u64;
    let later = pointer + (1 << KEY_SHIFT);
    let beyond = pointer | ((1 << PLACE_BITS) - 1) << PLACE_SHIFT;
    let odd = [
        1,
        pointer + 1,
        (&raw const on_the_stack).addr(),
        usize::MAX,
        later,
        beyond,
        pointer & !(0xf << (MARK_SHIFT - KIND_BITS)),
    ];
    for other in odd {
        let refused = pin(other, Kind::Graphs, false).unwrap_err();
        assert_eq!(refused, Refusal::Foreign, "{other:x}");
        let refused = free(other, Kind::Graphs).unwrap_err();
        assert_eq!(refused, Refusal::Foreign, "{other:x}");
    }
    end(free(pointer, Kind::Graphs).unwrap());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[test]
fn one_that_needs_it_alone_and_others_refuse_each_other() {
    let ended = counter();
    let pointer = enter(Kind::Spec, object(ended)).unwrap();
    let shared = pin(pointer, Kind::Spec, false).unwrap();
    assert_eq!(pin(pointer, Kind::Spec, true).unwrap_err(), Refusal::InUse);
    end(shared.end());
    let alone = pin(pointer, Kind::Spec, true).unwrap();
    assert_eq!(pin(pointer, Kind::Spec, true).unwrap_err(), Refusal::InUse);
    assert_eq!(pin(pointer, Kind::Spec, false).unwrap_err(), Refusal::InUse);
    // Freed while it is used: ended by the one who uses it.
    end(free(pointer, Kind::Spec).unwrap());
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    end(alone.end());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

/// Threads pin and free the same objects. Each object is ended once, never while it is pinned, and one of the frees succeeds.
#[test]
fn threads_that_use_and_free_the_same_objects() {
    let rounds = if cfg!(miri) { 20 } else { 2_000 };
    let threads = 4;
    let ended = counter();
    for round in 0..rounds {
        let before = ended.load(Ordering::SeqCst);
        let pointer = enter(Kind::Session, object(ended)).unwrap();
        let freed = AtomicUsize::new(0);
        let waiting = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..threads {
                let (freed, waiting) = (&freed, &waiting);
                scope.spawn(move || {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    while waiting.load(Ordering::SeqCst) < threads {
                        std::thread::yield_now();
                    }
                    for turn in 0..20 {
                        if let Ok(pinned) = pin(pointer, Kind::Session, turn % 3 == 0) {
                            assert_eq!(ended.load(Ordering::SeqCst), before, "ended while pinned");
                            end(pinned.end());
                        }
                        if turn == 5 + 3 * number {
                            match free(pointer, Kind::Session) {
                                Ok(value) => {
                                    freed.fetch_add(1, Ordering::SeqCst);
                                    end(value);
                                }
                                Err(why) => assert_eq!(why, Refusal::Freed),
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(freed.load(Ordering::SeqCst), 1, "round {round}");
        assert_eq!(ended.load(Ordering::SeqCst), before + 1, "round {round}");
    }
}

/// Generations that are used up: the place is not used again, and its pointers stay refused.
#[test]
fn a_place_is_given_up_when_its_generations_are() {
    let ended = counter();
    let pointer = enter(Kind::Root, object(ended)).unwrap();
    let (slot, place, _) = read(pointer, Kind::Root).unwrap();
    slot.state.store(
        key(LAST_GENERATION, Kind::Root as u64) << STATE_KEY_SHIFT,
        Ordering::SeqCst,
    );
    let last = pointer | (LAST_GENERATION as usize) << KEY_SHIFT;
    end(free(last, Kind::Root).unwrap());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(pin(last, Kind::Root, false).unwrap_err(), Refusal::Freed);
    let others: Vec<usize> = (0..50)
        .map(|_| enter(Kind::Root, object(ended)).unwrap())
        .collect();
    let place_of = |pointer: usize| (pointer >> PLACE_SHIFT) as u32 & ((1 << PLACE_BITS) - 1);
    assert!(others.iter().all(|other| place_of(*other) != place));
    for pointer in others {
        end(free(pointer, Kind::Root).unwrap());
    }
}
