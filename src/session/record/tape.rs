//! What happened in a run, in order, as plain numbers: quick to write, quick to compare.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::args::{Args, Source};
use super::element::{Element, Tag};
use graphpatch_core::graph::Kind;
use graphpatch_core::path::Name;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Enter {
        name: Name,
        class_name: Arc<str>,
        module_path: Arc<str>,
    },
    Leave,
    /// A leaf in the scope `level` scopes above the innermost one, with `atoms` atoms.
    Leaf {
        level: u32,
        kind: Kind,
        name: Name,
        target: Arc<str>,
        atoms: u32,
    },
}

/// One element of a value, without its sizes and texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Atom {
    pub(super) tag: Tag,
    /// Direct elements of a container, or a tensor's rank.
    pub(super) count: u32,
    pub(super) dtype: &'static str,
    pub(super) device: &'static str,
    pub(super) device_index: Option<i16>,
    pub(super) layout: &'static str,
    /// Whether the element has a key, and whether it has a text or a type's name; both stand in `texts`.
    pub(super) key: bool,
    pub(super) text: bool,
}

/// The record of one run. Two runs that did the same leave equal tapes.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub(super) events: Vec<Event>,
    pub(super) atoms: Vec<Atom>,
    pub(super) sizes: Vec<i64>,
    pub(super) texts: Vec<Box<str>>,
    /// For each atom, which tensor it is; for some events (by index), what they were made from. Both may differ between two
    /// runs that did the same, so they are not compared.
    pub(super) identities: Vec<usize>,
    pub(super) notes: Vec<(usize, Args)>,
    /// For each event, a hash of its name and of all before it.
    prefix: Vec<u64>,
    /// Earlier runs of the same root, the latest last, and the index of one that has been equal to this run so far.
    known: Vec<Arc<Tape>>,
    like: Option<usize>,
}

impl PartialEq for Tape {
    fn eq(&self, other: &Tape) -> bool {
        self.events == other.events
            && self.atoms == other.atoms
            && self.sizes == other.sizes
            && self.texts == other.texts
    }
}

impl Tape {
    /// The tape of a run whose root is open. `known` are tapes of earlier runs of that root.
    pub fn new(known: Vec<Arc<Tape>>) -> Tape {
        let mut tape = Tape::default();
        if let Some(like) = known.last() {
            tape.events.reserve(like.events.len());
            tape.prefix.reserve(like.events.len());
            tape.atoms.reserve(like.atoms.len());
            tape.identities.reserve(like.atoms.len());
            tape.sizes.reserve(like.sizes.len());
        }
        tape.like = known.len().checked_sub(1);
        tape.known = known;
        tape
    }

    /// The tape without what only [`Tape::tree`] needs, and without spare memory, since it is kept as long as its session.
    pub fn forget(mut self) -> Tape {
        self.events.shrink_to_fit();
        self.prefix.shrink_to_fit();
        self.atoms.shrink_to_fit();
        self.sizes.shrink_to_fit();
        self.texts.shrink_to_fit();
        Tape {
            identities: Vec::new(),
            notes: Vec::new(),
            known: Vec::new(),
            ..self
        }
    }

    /// The hash of an event that would come next.
    fn next_prefix(&self, what: impl Hash, name: Name) -> u64 {
        let mut hasher = FxHasher::default();
        (self.prefix.last(), what, name).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether an earlier run has an event with this hash here, so that the run was equal up to and including it.
    fn known_by(&mut self, hash: u64) -> bool {
        let at = self.prefix.len();
        let came = |tape: &Arc<Tape>| tape.prefix.get(at) == Some(&hash);
        if self.like.is_some_and(|like| came(&self.known[like])) {
            return true;
        }
        self.like = self.known.iter().rposition(came);
        self.like.is_some()
    }

    /// Whether the leaf that comes next was recorded in an earlier run.
    pub fn knows(&mut self, kind: Kind, name: Name) -> bool {
        self.known_by(self.next_prefix((kind, 0usize), name))
    }

    /// The same for a scope.
    pub fn knows_scope(&mut self, name: Name) -> bool {
        self.known_by(self.next_prefix(Kind::Scope, name))
    }

    /// A scope opens inside the innermost one, called from `source`. Gives the number of that event.
    pub fn enter(
        &mut self,
        name: Name,
        class_name: &Arc<str>,
        module_path: &Arc<str>,
        source: Source,
    ) -> usize {
        let at = self.events.len();
        self.locate(at, source);
        self.prefix.push(self.next_prefix(Kind::Scope, name));
        self.events.push(Event::Enter {
            name,
            class_name: class_name.clone(),
            module_path: module_path.clone(),
        });
        at
    }

    /// Adds frames to the place from which the scope of this event was called: calls inside the frames known so far.
    pub fn locate(&mut self, event: usize, mut source: Source) {
        if source.is_empty() {
            return;
        }
        match self.notes.binary_search_by_key(&event, |note| note.0) {
            Ok(at) => {
                let known = &mut self.notes[at].1.source;
                known.frames.append(&mut source.frames);
                if known.stack.is_empty() {
                    known.stack = source.stack;
                }
            }
            Err(at) => self.notes.insert(at, (event, Args::new(&[], source))),
        }
    }

    /// The innermost scope closes.
    pub fn leave(&mut self) {
        self.prefix.push(self.prefix.last().copied().unwrap_or(0));
        self.events.push(Event::Leave);
    }

    /// A leaf in the scope `level` scopes above the innermost one.
    pub fn leaf(
        &mut self,
        level: usize,
        kind: Kind,
        name: Name,
        target: &Arc<str>,
        value: &[Element<'_>],
        args: Option<Args>,
    ) {
        if let Some(args) = args {
            self.notes.push((self.events.len(), args));
        }
        for element in value {
            let rank = element.sizes.len();
            let tensor = element.tag == Tag::Tensor;
            self.sizes.extend_from_slice(element.sizes);
            let (key, text) = (!element.key.is_empty(), element.tag == Tag::Other);
            if key {
                self.texts.push(element.key.into());
            }
            if text {
                self.texts.push(element.text.into());
            }
            self.identities.push(element.identity);
            self.atoms.push(Atom {
                tag: element.tag,
                count: if tensor { rank } else { element.count } as u32,
                dtype: element.dtype,
                device: element.device,
                device_index: element.device_index,
                layout: element.layout,
                key,
                text,
            });
        }
        self.prefix.push(self.next_prefix((kind, level), name));
        self.events.push(Event::Leaf {
            level: level as u32,
            kind,
            name,
            target: target.clone(),
            atoms: value.len() as u32,
        });
    }
}
