//! Operations by number, so that the hot path passes a `u32` and takes no lock.

use std::sync::Arc;

use graphpatch_locks::{Lazy, Mutex, OnceLock, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use graphpatch_core::graph::inside::ATTENTION;
use graphpatch_core::path::{Base, Name};

/// One operator of the process.
#[derive(Debug)]
pub struct Op {
    /// What its nodes are called first: `aten::add.Tensor` is `add`.
    pub name: Name,
    /// [`Name::family`] of it.
    pub family: Base,
    /// The schema's full name.
    pub schema: Arc<str>,
    /// Whether values on the way to its result can be shown ([`crate::Run::inner`]).
    pub has_inside: bool,
}

const CHUNK: usize = 256;

/// Chunks never move once made: a number can be looked up while others are defined.
static TABLE: [OnceLock<Box<[OnceLock<Op>]>>; 256] = [const { OnceLock::new() }; 256];
static NUMBERS: Lazy<Mutex<FxHashMap<Arc<str>, u32>>> = Lazy::new(Mutex::default);

/// The families of the names of all operators of the process, called or not.
static FAMILIES: Lazy<RwLock<FxHashSet<Base>>> = Lazy::new(RwLock::default);

/// `aten::add.Tensor` asks for the name `add`.
fn candidate(schema: &str) -> Name {
    let base = schema.split_once("::").map_or(schema, |(_, rest)| rest);
    Name::candidate(base.split_once('.').map_or(base, |(name, _)| name))
}

/// Notes that the process has an operator of this name.
pub fn exists(schema: &str) {
    FAMILIES.write().insert(candidate(schema).family());
}

/// Whether some operator's nodes are of this [`Name::family`].
pub fn is_family(family: Base) -> bool {
    FAMILIES.read().contains(&family)
}

/// A number for the operator: the same one for the same schema. A process with more than 65536 operators gets one name
/// for the rest.
pub fn define(schema: &str) -> u32 {
    let mut known = NUMBERS.lock();
    if let Some(id) = known.get(schema) {
        return *id;
    }
    let id = known.len().min(CHUNK * TABLE.len() - 1);
    let chunk = TABLE[id / CHUNK].get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
    let name = candidate(schema);
    exists(schema);
    let schema: Arc<str> = schema.into();
    let _ = chunk[id % CHUNK].set(Op {
        name,
        family: name.family(),
        has_inside: &*schema == ATTENTION,
        schema: schema.clone(),
    });
    known.insert(schema, id as u32);
    id as u32
}

/// The operator of a number that [`define`] gave.
pub fn get(id: u32) -> Option<&'static Op> {
    let id = id as usize;
    TABLE.get(id / CHUNK)?.get()?.get(id % CHUNK)?.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_schema() {
        for (schema, name) in [
            ("aten::add.Tensor", "add"),
            ("aten::add_.Tensor", "add_"),
            ("mylib::foo", "foo"),
            ("quantized::linear_dynamic", "linear_dynamic"),
        ] {
            let op = get(define(schema)).unwrap();
            assert_eq!(op.name.to_string(), name);
            assert_eq!(&*op.schema, schema);
        }
        assert!(get(65_000).is_none());
    }
}
