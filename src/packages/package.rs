//! The inside of one model, as its package tells of it.

use std::collections::BTreeMap;

use crate::calls::Call;

/// A node of the model's graph that belongs to a call: a value that the call has computed, or one that was fused away.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The call's index.
    pub call: usize,
    /// The names of the scopes around it, and its own.
    pub path: Vec<String>,
    /// What computes it: an operator of the original model, or a kernel.
    pub target: String,
    pub shows: Shows,
}

/// What a node's value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Shows {
    /// All outputs of the call.
    All,
    /// One output, or a view of it.
    One { output: usize, view: Option<View> },
    /// No value: the text says where it went and which values are nearest.
    Nothing(String),
}

/// How a value lies in the memory of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The value's sizes. A negative number stands for a size of an input: see [`NAMES`](crate::NAMES).
    pub sizes: Vec<i64>,
    /// Its dimensions in the order of memory, if its elements have another order there than those of the tensor.
    pub order: Option<Vec<u32>>,
}

/// A module of the original model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub class_name: String,
    pub module_path: String,
}

/// The inside of one model.
#[derive(Debug, PartialEq)]
pub struct Package {
    pub class_name: String,
    pub inputs: Vec<String>,
    pub calls: Vec<Call>,
    /// In the order of their calls.
    pub nodes: Vec<Node>,
    pub(crate) scopes: BTreeMap<String, Scope>,
}

impl Package {
    /// What is known of the scope at this path.
    pub fn scope(&self, path: &[String]) -> Scope {
        let known = self.scopes.get(&path.join("."));
        known.cloned().unwrap_or_else(|| Scope {
            class_name: "Module".to_owned(),
            module_path: path.last().cloned().unwrap_or_default(),
        })
    }
}
