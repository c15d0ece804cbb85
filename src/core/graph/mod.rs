//! The recorded graph: nodes under their NodePaths, with what was seen of their values.
//!
//! `graphpatch_session::record` fills a graph from one run and merges further runs into it (`merge.rs`). A graph is shown as
//! text (`tree.rs`, `code.rs`), saved and loaded (`file.rs`), compared (`diff.rs`), and answers which paths there are
//! (`find.rs`, `complete.rs`, `search.rs`, `check.rs`, `nearest.rs`, `expand.rs`). Some operations have an inside (`inside.rs`). The source lines of native code are looked up only when
//! somebody asks for them (`address.rs`). Everything here is plain data: no tensor is held.

mod address;
mod call;
mod check;
mod code;
mod complete;
mod counts;
mod diff;
mod expand;
pub mod file;
#[cfg(test)]
mod file_tests;
mod find;
pub mod inside;
mod merge;
mod nearest;
mod ranks;
mod root;
mod search;
mod tree;
pub mod value;

use serde::{Deserialize, Serialize};

pub use address::CodeAddress;
pub use call::Call;
pub use check::{check, in_each_root, of_root, shared_note};
pub use counts::Counts;
pub use diff::{Difference, diff};
pub use expand::{expand, matching};
pub use file::{FORMAT, GraphFile};
pub use nearest::{Offer, nearest, nearest_line};
pub use ranks::{RankGraphs, merge_ranks};
pub use root::RootNode;
pub use search::{Hit, Query, ShapePattern};
pub use tree::{Part, TreeStyle};
pub use value::{Dim, TensorInfo, Value};

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An argument of the scope's `forward`.
    Input,
    /// A parameter or buffer of the scope's module.
    Parameter,
    /// An operation.
    Op,
    /// A call of a module; the only kind with children.
    Scope,
    /// What the scope returned.
    Output,
}

/// An argument of an operation or scope, as `code` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// The node of the same scope that it came from: `name[|dig]`.
    Node(String),
    /// A node of another scope that it came from directly (a global, an attribute): its path from the root.
    Outer(String),
    /// A constant, as Python text.
    Const(String),
    List(Vec<Arg>),
    Tuple(Vec<Arg>),
    Dict(Vec<(String, Arg)>),
}

/// One place in the user's source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLine {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// The source line itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

fn is_zero(line: &u32) -> bool {
    *line == 0
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique among its siblings.
    pub name: String,
    pub kind: Kind,
    /// What was seen; `Value::None`, and without meaning, for a scope.
    #[serde(default, skip_serializing_if = "Value::is_none")]
    pub value: Value,
    /// Only scopes have any; in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
    /// An operation's schema (`aten::add.Tensor`), a scope's module class, a parameter's attribute path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// A scope's attribute path as called, such as `layers.8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module_path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kwargs: Vec<(String, Arg)>,
    /// Where it was called, innermost last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<SourceLine>,
    /// Calls in native code around `frames`, innermost last, that have yet to become frames.
    #[serde(skip)]
    pub addresses: Vec<CodeAddress>,
    /// Calls of later runs that differ from the call of the first run, which the fields from `target` to `addresses` hold. If
    /// there are any, `kwargs` of a scope keeps the inputs of the first run's call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_calls: Vec<Call>,
    /// Whether some calls of its scope did not reach this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_some_runs: bool,
}

impl Node {
    /// A node of this kind and name, all else empty.
    pub fn new(kind: Kind, name: impl Into<String>) -> Node {
        Node {
            name: name.into(),
            kind,
            value: Value::None,
            children: Vec::new(),
            target: String::new(),
            module_path: String::new(),
            args: Vec::new(),
            kwargs: Vec::new(),
            frames: Vec::new(),
            addresses: Vec::new(),
            other_calls: Vec::new(),
            in_some_runs: false,
        }
    }

    /// The same node with a value.
    pub fn with_value(self, value: Value) -> Node {
        Node { value, ..self }
    }

    /// The same node with children.
    pub fn with_children(self, children: Vec<Node>) -> Node {
        Node { children, ..self }
    }

    /// Gives back the memory that the lists of children were made with and do not use.
    pub fn shrink(&mut self) {
        self.children.shrink_to_fit();
        self.children.iter_mut().for_each(Node::shrink);
    }

    /// What it holds, as the tree shows it: `Graph(5)` for a scope, else its value's label.
    pub fn label(&self) -> String {
        match self.is_scope() {
            true => format!("Graph({})", self.children.len()),
            false => self.value.label(),
        }
    }

    /// Whether this is the call of a module.
    pub fn is_scope(&self) -> bool {
        self.kind == Kind::Scope
    }

    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.name == name)
    }
}

/// Everything recorded of one root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// What was called: class and method, such as `__torch__.Model.forward`.
    pub name: String,
    /// The scope named [`Graph::ROOT`].
    pub root: RootNode,
    /// How many runs were merged into it.
    pub runs: u64,
}

impl Graph {
    /// The name of every root node.
    pub const ROOT: &'static str = "<root>";

    /// An empty graph of no run.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph {
            name: name.into(),
            root: Node::new(Kind::Scope, Graph::ROOT).into(),
            runs: 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub fn tensor(shape: &[i64]) -> Value {
        Value::Tensor(TensorInfo {
            shape: shape.iter().map(|n| Dim::of(*n)).collect(),
            dtype: "float32".into(),
            device: "cpu".into(),
            layout: "strided".into(),
        })
    }

    pub fn leaf(kind: Kind, name: &str, value: Value) -> Node {
        Node::new(kind, name).with_value(value)
    }

    pub fn linear(name: &str) -> Node {
        let mut scope = Node::new(Kind::Scope, name).with_children(vec![
            leaf(Kind::Input, "input", tensor(&[3, 2])),
            leaf(Kind::Parameter, "weight", tensor(&[3, 2])),
            leaf(Kind::Parameter, "bias", tensor(&[3])),
            leaf(Kind::Op, "linear", tensor(&[3, 3])),
            leaf(Kind::Output, "output", tensor(&[3, 3])),
        ]);
        scope.module_path = "linear".into();
        scope
    }

    /// A module that calls one Linear on `x` and again on `x + 1`, and returns both values.
    pub fn tuple_output() -> Graph {
        let children = vec![
            leaf(Kind::Input, "x", tensor(&[3, 2])),
            linear("linear"),
            leaf(Kind::Op, "add", tensor(&[3, 2])),
            linear("linear_1"),
            leaf(
                Kind::Output,
                "output",
                Value::Tuple(vec![tensor(&[3, 3]), tensor(&[3, 3])]),
            ),
        ];
        let mut graph = Graph::new("TupleOutputModule.forward");
        graph.root.children = children;
        graph.runs = 1;
        graph
    }
}
