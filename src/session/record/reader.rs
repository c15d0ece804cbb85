//! Reads a tape's atoms back as values.

use super::element::Tag;
use super::tape::{Atom, Tape};
use graphpatch_core::graph::{Dim, TensorInfo, Value};

/// Reads atoms back as values.
pub(super) struct Reader<'a> {
    atoms: std::slice::Iter<'a, Atom>,
    sizes: &'a [i64],
    texts: std::slice::Iter<'a, Box<str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn of(tape: &'a Tape) -> Reader<'a> {
        Reader {
            atoms: tape.atoms.iter(),
            sizes: &tape.sizes,
            texts: tape.texts.iter(),
        }
    }

    /// The value that the next `n` atoms describe; `None` if `n` is 0.
    pub(super) fn values(&mut self, n: usize) -> Value {
        if n == 0 {
            return Value::None;
        }
        self.value().1
    }

    fn value(&mut self) -> (String, Value) {
        let Some(atom) = self.atoms.next() else {
            return (String::new(), Value::None);
        };
        let key = if atom.key { self.text() } else { String::new() };
        let text = if atom.text {
            self.text()
        } else {
            String::new()
        };
        let n = atom.count as usize;
        let value = match atom.tag {
            Tag::Tensor => Value::Tensor(self.tensor(atom)),
            Tag::Undefined => Value::Undefined,
            Tag::None => Value::None,
            Tag::Bool => Value::Bool,
            Tag::Int => Value::Int,
            Tag::Float => Value::Float,
            Tag::Complex => Value::Complex,
            Tag::Str => Value::Str,
            Tag::Tuple => Value::Tuple((0..n).map(|_| self.value().1).collect()),
            Tag::List => Value::List((0..n).map(|_| self.value().1).collect()),
            Tag::Dict => Value::Dict((0..n).map(|_| self.value()).collect()),
            Tag::Other => Value::Other(text),
        };
        (key, value)
    }

    fn text(&mut self) -> String {
        self.texts
            .next()
            .map(|text| text.to_string())
            .unwrap_or_default()
    }

    fn tensor(&mut self, atom: &Atom) -> TensorInfo {
        let rank = (atom.count as usize).min(self.sizes.len());
        let (sizes, rest) = self.sizes.split_at(rank);
        self.sizes = rest;
        TensorInfo {
            shape: sizes.iter().map(|size| Dim::of(*size)).collect(),
            dtype: atom.dtype.into(),
            device: match atom.device_index {
                Some(index) => format!("{}:{index}", atom.device).into(),
                None => atom.device.into(),
            },
            layout: atom.layout.into(),
        }
    }
}
