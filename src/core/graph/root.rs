//! The root node of a graph.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Node;

/// The node that all others of a graph are below. Copies of a graph share their nodes until one of them is changed: a session
/// and everybody who asks for its graphs then keep one tree, not one each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootNode(Arc<Node>);

impl From<Node> for RootNode {
    fn from(node: Node) -> RootNode {
        RootNode(Arc::new(node))
    }
}

impl From<RootNode> for Node {
    fn from(root: RootNode) -> Node {
        Arc::unwrap_or_clone(root.0)
    }
}

impl Deref for RootNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

/// What is about to change is copied first if other graphs share it.
impl DerefMut for RootNode {
    fn deref_mut(&mut self) -> &mut Node {
        Arc::make_mut(&mut self.0)
    }
}
