//! A tape becomes a tree of nodes, in which every argument has the name of the node that it came from.

use rustc_hash::FxHashMap;

use super::args::{Args, Source};
use super::reader::Reader;
use super::tape::{Event, Tape};
use graphpatch_core::graph::{Arg, Graph, Kind, Node, Value};
use graphpatch_locks::gate::Inside;
use graphpatch_native::Modules;

/// A scope that is not closed yet.
struct Open {
    node: Node,
    /// The names (`name` or `name|dig`) that tensors have in this scope, by the tensors' identities.
    names: FxHashMap<usize, String>,
    /// Tensors of its output, with their dig.
    output: Vec<(usize, String)>,
    /// Path of the scope below the root, with a dot at the end if it is not the root's.
    path: String,
    /// The scope's index among its siblings, if it was entered before.
    place: Option<usize>,
    /// The closed scopes inside this one, by name.
    closed: FxHashMap<String, Closed>,
}

/// A scope that was closed, and may be entered again.
struct Closed {
    /// Its index among its siblings.
    place: usize,
    /// See [`Open`].
    names: FxHashMap<usize, String>,
    closed: FxHashMap<String, Closed>,
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
        let mut reader = Reader::of(self);
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
            Some(mut root) => {
                root.node.shrink();
                root.node
            }
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
    /// The modules (executables and libraries) of the process, listed when they are needed first.
    modules: Option<Modules>,
}

impl Builder {
    /// Notes where a node was called, as files and addresses that stay true when a library is unloaded.
    fn locate(&mut self, node: &mut Node, source: &Source) {
        // Not `clone_from`, which makes room for four.
        node.frames = source.frames.clone();
        if !source.stack.is_empty() {
            let modules = self.modules.get_or_insert_with(|| {
                // Listing the modules takes the dynamic linker's lock, which a forked child would find locked forever.
                let _inside = Inside::new();
                Modules::now()
            });
            node.addresses = modules.addresses(&source.stack);
        }
    }

    fn enter(&mut self, scope: Node) {
        let around = self.open.last().map_or("", |open| open.path.as_str());
        let path = format!("{around}{}.", scope.name);
        let mut open = Open::new(scope, path);
        // In a flat run, and by compiled code, a scope is entered again and again. Names are unique, so a closed scope of this name is the same scope.
        if let Some(around) = self.open.last_mut()
            && let Some(before) = around.closed.remove(&open.node.name)
        {
            std::mem::swap(&mut open.node, &mut around.node.children[before.place]);
            open.names = before.names;
            open.closed = before.closed;
            open.place = Some(before.place);
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
            let closed = Closed {
                place,
                names: done.names,
                closed: done.closed,
            };
            around.closed.insert(done.node.name.clone(), closed);
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
            // The inputs of a scope are written with the names that its caller uses.
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

    /// The name of a tensor in the scope at `place`.
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
