//! A tape becomes a tree of nodes, in which every argument has the name of the node that it came from.

use rustc_hash::FxHashMap;

use super::args::{Args, Source};
use super::element::Tag;
use super::tape::{Atom, Event, Tape};
use graphpatch_core::graph::{Arg, Dim, Graph, Kind, Node, TensorInfo, Value};
use graphpatch_native::Modules;

/// A scope that is not closed yet.
struct Open {
    node: Node,
    /// The names by which this scope knows the tensors that it has seen, `name` or `name|dig`.
    names: FxHashMap<usize, String>,
    /// Tensors of its output, with their dig.
    output: Vec<(usize, String)>,
    /// Path of the scope below the root, with a dot at the end if it is not the root's.
    path: String,
    /// Where it stands among its siblings, if it was entered before.
    place: Option<usize>,
    /// Closed scopes inside it: where they stand, and the names in them.
    closed: FxHashMap<String, (usize, FxHashMap<usize, String>)>,
}

impl Tape {
    /// The run as a tree below the root; scopes that an exception left open are closed.
    pub fn tree(&self, class_name: &str) -> Node {
        let mut builder = Builder {
            open: vec![Open::new(
                Node::new(Kind::Scope, Graph::ROOT),
                String::new(),
            )],
            paths: FxHashMap::default(),
            modules: None,
        };
        builder.open[0].node.target = class_name.to_owned();
        let mut reader = Reader {
            atoms: self.atoms.iter(),
            sizes: &self.sizes,
            texts: self.texts.iter(),
        };
        let mut identities = self.identities.as_slice();
        let mut notes = self.notes.iter().peekable();
        for (index, event) in self.events.iter().enumerate() {
            let args = notes.next_if(|note| note.0 == index).map(|note| &note.1);
            match event {
                Event::Enter {
                    name,
                    class_name,
                    module_path,
                } => {
                    let mut scope = Node::new(Kind::Scope, name.to_string());
                    scope.target = class_name.to_string();
                    scope.module_path = module_path.to_string();
                    if let Some(args) = args {
                        builder.locate(&mut scope, &args.source);
                    }
                    builder.enter(scope);
                }
                Event::Leave => builder.leave(),
                Event::Leaf {
                    level,
                    kind,
                    name,
                    target,
                    atoms,
                } => {
                    let atoms = *atoms as usize;
                    let mut leaf =
                        Node::new(*kind, name.to_string()).with_value(reader.values(atoms));
                    leaf.target = target.to_string();
                    let (own, rest) = identities.split_at(atoms.min(identities.len()));
                    identities = rest;
                    builder.leaf(*level as usize, leaf, own, args);
                }
            }
        }
        while builder.open.len() > 1 {
            builder.leave();
        }
        match builder.open.pop() {
            Some(root) => root.node,
            None => Node::new(Kind::Scope, Graph::ROOT),
        }
    }
}

impl Open {
    fn new(node: Node, path: String) -> Open {
        Open {
            node,
            names: FxHashMap::default(),
            output: Vec::new(),
            path,
            place: None,
            closed: FxHashMap::default(),
        }
    }
}

struct Builder {
    open: Vec<Open>,
    /// Where each tensor was seen last, as a path from the root.
    paths: FxHashMap<usize, String>,
    /// What is loaded, once that is asked for.
    modules: Option<Modules>,
}

impl Builder {
    /// Notes where a node was called, in words that stay true when a library is unloaded.
    fn locate(&mut self, node: &mut Node, source: &Source) {
        node.frames.clone_from(&source.frames);
        if !source.stack.is_empty() {
            let modules = self.modules.get_or_insert_with(Modules::now);
            node.addresses = modules.addresses(&source.stack);
        }
    }

    fn enter(&mut self, scope: Node) {
        let around = self.open.last().map_or("", |open| open.path.as_str());
        let path = format!("{around}{}.", scope.name);
        let mut open = Open::new(scope, path);
        // In a flat run a scope is entered again and again. Names are unique: one of that name is the same one.
        if let Some(around) = self.open.last_mut()
            && let Some((place, names)) = around.closed.remove(&open.node.name)
        {
            std::mem::swap(&mut open.node, &mut around.node.children[place]);
            open.names = names;
            open.place = Some(place);
        }
        self.open.push(open);
    }

    fn leave(&mut self) {
        if self.open.len() > 1
            && let Some(done) = self.open.pop()
            && let Some(around) = self.open.last_mut()
        {
            for (identity, dig) in done.output {
                around.names.insert(identity, dug(&done.node.name, &dig));
            }
            let place = done.place.unwrap_or(around.node.children.len());
            around
                .closed
                .insert(done.node.name.clone(), (place, done.names));
            match around.node.children.get_mut(place) {
                Some(before) => *before = done.node,
                None => around.node.children.push(done.node),
            }
        }
    }

    /// A leaf of the scope `level` scopes above the innermost one. `identities` are those of its value's elements.
    fn leaf(&mut self, level: usize, mut leaf: Node, identities: &[usize], args: Option<&Args>) {
        let Some(place) = self.open.len().checked_sub(level + 1) else {
            return;
        };
        if let Some(args) = args {
            // What goes into a scope is spoken of in the words of its caller.
            let speaker = match leaf.kind {
                Kind::Input => place.checked_sub(1),
                _ => Some(place),
            };
            if let Some(speaker) = speaker {
                let name = |identity| self.name(speaker, identity);
                (leaf.args, leaf.kwargs) = args.resolve(&name);
            }
            self.locate(&mut leaf, &args.source);
        }
        let mut tensors = Vec::new();
        tensors_of(&leaf.value, "", &mut identities.iter(), &mut tensors);
        let scope = &mut self.open[place];
        for (identity, dig) in &tensors {
            let name = dug(&leaf.name, dig);
            self.paths
                .insert(*identity, format!("{}{name}", scope.path));
            if leaf.kind != Kind::Output {
                scope.names.insert(*identity, name);
            }
        }
        if leaf.kind == Kind::Output {
            scope.output = tensors;
        }
        scope.node.children.push(leaf);
    }

    /// What the scope at `place` calls a tensor.
    fn name(&self, place: usize, identity: usize) -> Option<Arg> {
        if identity == 0 {
            return None;
        }
        let own = self.open[place].names.get(&identity);
        own.map(|name| Arg::Node(name.clone())).or_else(|| {
            let path = self.paths.get(&identity)?;
            Some(Arg::Outer(path.clone()))
        })
    }
}

fn dug(name: &str, dig: &str) -> String {
    match dig.is_empty() {
        true => name.to_owned(),
        false => format!("{name}|{dig}"),
    }
}

/// The value's tensors, with their dig, given the identities of all its elements in preorder.
fn tensors_of(
    value: &Value,
    dig: &str,
    identities: &mut std::slice::Iter<'_, usize>,
    out: &mut Vec<(usize, String)>,
) {
    let identity = identities.next().copied().unwrap_or(0);
    let below = |name: &str| match dig.is_empty() {
        true => name.to_owned(),
        false => format!("{dig}.{name}"),
    };
    match value {
        Value::Tensor(_) if identity != 0 => out.push((identity, dig.to_owned())),
        Value::Tuple(items) | Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                tensors_of(item, &below(&format!("sub_{index}")), identities, out);
            }
        }
        Value::Dict(items) => {
            for (key, item) in items {
                tensors_of(item, &below(key), identities, out);
            }
        }
        _ => {}
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
    use std::sync::Arc;

    use super::*;
    use crate::record::Element;
    use graphpatch_core::path::Name;

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
        let mut tape = Tape::new(Vec::new());
        tape.leaf(
            0,
            Kind::Input,
            name("x"),
            &text(""),
            &[tensor(&[1, length])],
            None,
        );
        tape.enter(
            name("layers.0"),
            &text("Block"),
            &text("layers.0"),
            Source::default(),
        );
        tape.leaf(
            1,
            Kind::Parameter,
            name("scale"),
            &text("scale"),
            &[tensor(&[])],
            None,
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
        tape.leaf(0, Kind::Op, name("topk"), &text("aten::topk"), &dict, None);
        tape.leave();
        tape.leaf(0, Kind::Output, name("output"), &text(""), &[], None);
        tape
    }

    #[test]
    fn a_tape_becomes_a_tree() {
        let tree = record(5).tree("Model");
        let graph = Graph {
            root: tree,
            ..Graph::new("Model.forward")
        };
        let text = graph
            .tree(&graphpatch_core::path::NodePath::root())
            .unwrap();
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
        tape.enter(
            Name::candidate("late"),
            &"".into(),
            &"late".into(),
            Source::default(),
        );
        tape.leaf(
            0,
            Kind::Op,
            Name::candidate("add"),
            &"".into(),
            &[container(Tag::List, 2)],
            None,
        );
        let tree = tape.tree("");
        let late = tree.child("late").unwrap();
        assert!(matches!(&late.children[0].value, Value::List(list) if list.len() == 2));
    }

    /// A root that hands `x` to a module twice, the second time by way of a list, and keeps what the module saw.
    fn flow() -> Node {
        let mut tape = Tape::new(Vec::new());
        let tensor = |identity| Element {
            identity,
            ..tensor(&[2])
        };
        let text = |t: &str| -> Arc<str> { t.into() };
        let leaf = |tape: &mut Tape, kind, name, value: &[Element<'_>], args: &[Element<'_>]| {
            let args = (kind != Kind::Parameter).then(|| Args::new(args, Source::default()));
            tape.leaf(
                0,
                kind,
                Name::candidate(name),
                &text("aten::op"),
                value,
                args,
            );
        };
        let list = [container(Tag::List, 2), tensor(2), tensor(3)];
        leaf(&mut tape, Kind::Input, "x", &[tensor(1)], &[tensor(1)]);
        leaf(&mut tape, Kind::Op, "chunk", &list, &[tensor(1)]);
        tape.enter(
            Name::candidate("inner"),
            &text("Inner"),
            &text("inner"),
            Source::default(),
        );
        leaf(&mut tape, Kind::Input, "h", &[tensor(3)], &[tensor(3)]);
        leaf(
            &mut tape,
            Kind::Op,
            "relu",
            &[tensor(4)],
            &[tensor(3), tensor(1)],
        );
        leaf(
            &mut tape,
            Kind::Output,
            "output",
            &[tensor(4)],
            &[tensor(4)],
        );
        tape.leave();
        leaf(
            &mut tape,
            Kind::Op,
            "add",
            &[tensor(5)],
            &[tensor(4), tensor(9)],
        );
        leaf(
            &mut tape,
            Kind::Output,
            "output",
            &[tensor(5)],
            &[tensor(5)],
        );
        tape.tree("Root")
    }

    #[test]
    fn arguments_have_the_names_that_their_scope_knows_them_by() {
        let root = flow();
        let args = |node: &Node| node.args.clone();
        let node = |name: &str| Arg::Node(name.into());
        assert!(args(&root.children[0]).is_empty(), "a run has no caller");
        assert_eq!(args(&root.children[1]), [node("x")]);
        let inner = &root.children[2].children;
        assert_eq!(
            args(&inner[0]),
            [node("chunk|sub_1")],
            "in the caller's words"
        );
        assert_eq!(args(&inner[1]), [node("h"), Arg::Outer("x".into())]);
        assert_eq!(args(&inner[2]), [node("relu")]);
        let add = [node("inner"), Arg::Const("<Tensor(2)>".into())];
        assert_eq!(args(&root.children[3]), add);
        assert_eq!(args(&root.children[4]), [node("add")]);
    }

    #[test]
    fn a_tape_knows_what_an_earlier_one_came_to_on_the_same_way() {
        let known = Arc::new(record(5).forget());
        let mut tape = Tape::new(vec![known]);
        let (x, y) = (Name::candidate("x"), Name::candidate("y"));
        assert!(tape.knows(Kind::Input, x));
        assert!(!tape.knows(Kind::Op, x));
        assert!(!tape.knows(Kind::Input, y));
        assert!(tape.knows(Kind::Input, x), "asking changes nothing");
        tape.leaf(0, Kind::Input, y, &"".into(), &[], None);
        assert!(
            !tape.knows_scope(Name::candidate("layers.0")),
            "it came another way"
        );
        let mut tape = Tape::new(vec![Arc::new(record(7).forget())]);
        tape.leaf(0, Kind::Input, x, &"".into(), &[tensor(&[2])], None);
        assert!(
            tape.knows_scope(Name::candidate("layers.0")),
            "shapes do not matter"
        );
    }
}
