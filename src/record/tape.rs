//! What happened in a run, in order, as plain numbers: quick to write, quick to compare.

use std::sync::Arc;

use super::element::{Element, Tag};
use crate::graph::{Dim, Graph, Kind, Node, TensorInfo, Value};
use crate::path::Name;

#[derive(Clone, Debug, PartialEq)]
enum Event {
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
struct Atom {
    tag: Tag,
    /// Direct elements of a container, or a tensor's rank.
    count: u32,
    dtype: &'static str,
    device: &'static str,
    device_index: Option<i16>,
    layout: &'static str,
    /// Whether a key, a type's name, waits on `texts`.
    key: bool,
    text: bool,
}

/// The record of one run. Two runs that did the same leave equal tapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tape {
    events: Vec<Event>,
    atoms: Vec<Atom>,
    sizes: Vec<i64>,
    texts: Vec<Box<str>>,
}

impl Tape {
    /// The tape of a run whose root is open. `like` says how long an earlier one got.
    pub fn new(like: Option<&Tape>) -> Tape {
        let mut tape = Tape::default();
        if let Some(like) = like {
            tape.events.reserve(like.events.len());
            tape.atoms.reserve(like.atoms.len());
            tape.sizes.reserve(like.sizes.len());
        }
        tape
    }

    /// A scope opens inside the innermost one.
    pub fn enter(&mut self, name: Name, class_name: &Arc<str>, module_path: &Arc<str>) {
        self.events.push(Event::Enter {
            name,
            class_name: class_name.clone(),
            module_path: module_path.clone(),
        });
    }

    /// The innermost scope closes.
    pub fn leave(&mut self) {
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
    ) {
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
        self.events.push(Event::Leaf {
            level: level as u32,
            kind,
            name,
            target: target.clone(),
            atoms: value.len() as u32,
        });
    }

    /// The run as a tree below `root`; scopes that an exception left open are closed.
    pub fn tree(&self, class_name: &str) -> Node {
        let mut root = Node::new(Kind::Scope, Graph::ROOT);
        root.target = class_name.to_owned();
        let mut open = vec![root];
        let mut reader = Reader {
            atoms: self.atoms.iter(),
            sizes: &self.sizes,
            texts: self.texts.iter(),
        };
        for event in &self.events {
            match event {
                Event::Enter {
                    name,
                    class_name,
                    module_path,
                } => {
                    let mut scope = Node::new(Kind::Scope, name.to_string());
                    scope.target = class_name.to_string();
                    scope.module_path = module_path.to_string();
                    open.push(scope);
                }
                Event::Leave => close(&mut open),
                Event::Leaf {
                    level,
                    kind,
                    name,
                    target,
                    atoms,
                } => {
                    let value = reader.values(*atoms as usize);
                    let mut leaf = Node::new(*kind, name.to_string()).with_value(value);
                    leaf.target = target.to_string();
                    let place = open.len().checked_sub(*level as usize + 1);
                    if let Some(scope) = place.and_then(|place| open.get_mut(place)) {
                        scope.children.push(leaf);
                    }
                }
            }
        }
        while open.len() > 1 {
            close(&mut open);
        }
        open.pop()
            .unwrap_or_else(|| Node::new(Kind::Scope, Graph::ROOT))
    }
}

fn close(open: &mut Vec<Node>) {
    if open.len() > 1
        && let Some(done) = open.pop()
        && let Some(around) = open.last_mut()
    {
        around.children.push(done);
    }
}

/// Reads atoms back as values.
struct Reader<'a> {
    atoms: std::slice::Iter<'a, Atom>,
    sizes: &'a [i64],
    texts: std::slice::Iter<'a, Box<str>>,
}

impl Reader<'_> {
    /// The value that the next `n` atoms are; none are `None`.
    fn values(&mut self, n: usize) -> Value {
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
            dtype: atom.dtype.to_owned(),
            device: match atom.device_index {
                Some(index) => format!("{}:{index}", atom.device),
                None => atom.device.to_owned(),
            },
            layout: atom.layout.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(sizes: &[i64]) -> Element<'_> {
        Element {
            sizes,
            dtype: "float32",
            device: "cuda",
            device_index: Some(1),
            layout: "strided",
            ..Element::of(Tag::Tensor)
        }
    }

    fn container(tag: Tag, count: usize) -> Element<'static> {
        Element {
            count,
            ..Element::of(tag)
        }
    }

    fn record(length: i64) -> Tape {
        let text = |t: &str| -> Arc<str> { t.into() };
        let name = Name::candidate;
        let mut tape = Tape::new(None);
        tape.leaf(
            0,
            Kind::Input,
            name("x"),
            &text(""),
            &[tensor(&[1, length])],
        );
        tape.enter(name("layers.0"), &text("Block"), &text("layers.0"));
        tape.leaf(
            1,
            Kind::Parameter,
            name("scale"),
            &text("scale"),
            &[tensor(&[])],
        );
        let dict = [
            container(Tag::Tuple, 2),
            container(Tag::Dict, 1),
            Element {
                key: "hidden",
                ..tensor(&[2, 3])
            },
            Element::of(Tag::Int),
        ];
        tape.leaf(0, Kind::Op, name("topk"), &text("aten::topk"), &dict);
        tape.leave();
        tape.leaf(0, Kind::Output, name("output"), &text(""), &[]);
        tape
    }

    #[test]
    fn a_tape_becomes_a_tree() {
        let tree = record(5).tree("Model");
        let graph = Graph {
            root: tree,
            ..Graph::new("Model.forward")
        };
        let text = graph.tree(&crate::path::NodePath::root()).unwrap();
        let expected = "\
<root>: Graph(4)
├─x: Tensor(1, 5)
├─scale: Tensor()
├─layers_0: Graph(1)
│ └─topk: tuple(2)
│   ├─sub_0: dict(1)
│   │ └─hidden: Tensor(2, 3)
│   └─sub_1: int
└─output: NoneType
";
        assert_eq!(text, expected);
        let Value::Tensor(info) = &graph.root.children[0].value else {
            panic!("no tensor");
        };
        assert_eq!(info.device, "cuda:1");
        assert_eq!(graph.root.children[2].module_path, "layers.0");
    }

    #[test]
    fn equal_runs_leave_equal_tapes() {
        assert_eq!(record(5), record(5));
        assert_ne!(record(5), record(6));
    }

    #[test]
    fn an_open_scope_is_closed_and_missing_elements_do_no_harm() {
        let mut tape = record(1);
        tape.enter(Name::candidate("late"), &"".into(), &"late".into());
        tape.leaf(
            0,
            Kind::Op,
            Name::candidate("add"),
            &"".into(),
            &[container(Tag::List, 2)],
        );
        let tree = tape.tree("");
        let late = tree.child("late").unwrap();
        assert!(matches!(&late.children[0].value, Value::List(list) if list.len() == 2));
    }
}
