//! The objects of a sequence of calls: whether each pointer is valid, and the choice of a pointer by a byte of the input.

use std::ptr::without_provenance_mut;

/// The types of objects.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Type {
    Session,
    Graphs,
    Spec,
    Value,
    Root,
    Scope,
    Aside,
    Snapshot,
}

/// A pointer that was handed out once.
#[derive(Clone, Copy)]
struct Held {
    kind: Type,
    pointer: usize,
    live: bool,
}

/// The state of the pointers that a call was given, which decides whether it must refuse them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Worth {
    /// All are live and of the type that the call takes.
    Right,
    /// At least one is dead or of another type.
    Wrong,
    /// None is wrong, but at least one is NULL, which some calls accept.
    Null,
}

/// The bytes of an input, one after the other; zeros behind its end.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }
}

#[derive(Clone, Default)]
pub struct Objects {
    held: Vec<Held>,
    /// The state of the pointers that were chosen since the last call.
    worth: Option<Worth>,
}

impl Objects {
    /// A pointer that a call has handed out.
    pub fn hold<C>(&mut self, kind: Type, pointer: *mut C) {
        let pointer = pointer.addr();
        if pointer != 0 {
            let new = self
                .held
                .iter()
                .all(|held| !held.live || held.pointer != pointer);
            assert!(new, "a live object's pointer was handed out again");
            let live = true;
            self.held.push(Held {
                kind,
                pointer,
                live,
            });
        }
    }

    /// A pointer for an argument of this type: often a right one.
    pub fn choose<C>(&mut self, kind: Type, bytes: &mut Bytes) -> *mut C {
        let byte = bytes.next();
        let (pointer, worth) = match byte {
            250.. => (0, Worth::Null),
            240.. => ((bytes.next() as usize) << (byte % 10 * 6), Worth::Wrong),
            _ => self.one_of(kind, byte),
        };
        // A made-up address may happen to be that of a live object; then it counts as that object.
        let worth = match (worth, pointer) {
            (Worth::Wrong, 0) => Worth::Null,
            (Worth::Wrong, _) => self.worth_of(kind, pointer),
            (other, _) => other,
        };
        self.worth = Some(match (self.worth, worth) {
            (Some(Worth::Wrong), _) | (_, Worth::Wrong) => Worth::Wrong,
            (Some(Worth::Null), _) | (_, Worth::Null) => Worth::Null,
            _ => Worth::Right,
        });
        without_provenance_mut(pointer)
    }

    /// One of the held pointers of this type or, for some bytes, of any type. It may be live or dead.
    fn one_of(&self, kind: Type, byte: u8) -> (usize, Worth) {
        let any = byte >= 200;
        let fits = |held: &&Held| any || held.kind == kind;
        let count = self.held.iter().filter(fits).count();
        if count == 0 {
            return (0, Worth::Null);
        }
        let at = byte as usize % count;
        let found = self.held.iter().rev().filter(fits).nth(at);
        let pointer = found.map_or(0, |held| held.pointer);
        (pointer, self.worth_of(kind, pointer))
    }

    fn worth_of(&self, kind: Type, pointer: usize) -> Worth {
        let right = |held: &Held| held.live && held.kind == kind && held.pointer == pointer;
        match self.held.iter().any(right) {
            true => Worth::Right,
            false => Worth::Wrong,
        }
    }

    /// The joint state of the pointers that were chosen since the last call.
    pub fn judged(&mut self) -> Worth {
        self.worth.take().unwrap_or(Worth::Right)
    }

    /// Notes that the object was freed as one of this type. It is dead if it is of this type; otherwise the free was refused.
    pub fn ended<C>(&mut self, kind: Type, pointer: *mut C) {
        for held in &mut self.held {
            if held.kind == kind && held.pointer == pointer.addr() {
                held.live = false;
            }
        }
    }

    /// All pointers of this type, live or not.
    pub fn all<C>(&self, kind: Type) -> Vec<*mut C> {
        let of_kind = self.held.iter().filter(|held| held.kind == kind);
        of_kind
            .map(|held| without_provenance_mut(held.pointer))
            .collect()
    }
}
