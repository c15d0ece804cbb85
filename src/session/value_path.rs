//! Where compiled code computes a value.

use std::sync::Arc;

use graphpatch_core::path::Name;

/// Where compiled code computes a value, counted from the scope that the code is called in.
#[derive(Debug)]
pub struct ValuePath {
    /// The scopes around the value, from the outside.
    pub scopes: Arc<[InnerScope]>,
    pub name: Name,
}

/// A scope of a [`ValuePath`].
#[derive(Debug)]
pub struct InnerScope {
    pub name: Name,
    pub class_name: Arc<str>,
    pub module_path: Arc<str>,
}
