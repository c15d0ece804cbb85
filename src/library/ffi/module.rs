//! gp_root and gp_scope: the modules of a host that tells of their calls, as Python and C++ do.

use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::{list, text};
use super::handle::{Handle, Shared, free, give};
use super::slots::Kind;
use super::{Status, guard};
use graphpatch_core::error::Result;
use graphpatch_session::{Root, Scope};

/// A module that runs are calls of, and all its parameters. Any number of runs on any thread may use one. Since 0.1.0.
pub struct gp_root {
    _opaque: [u8; 0],
}

impl Handle for gp_root {
    const NAME: &'static str = "root";
    const KIND: Kind = Kind::Root;
    type Value = Root;
    type Owner = Shared;
}

/// A module as it is called from another one. Any number of calls on any thread may use one. Since 0.1.0.
pub struct gp_scope {
    _opaque: [u8; 0],
}

impl Handle for gp_scope {
    const NAME: &'static str = "scope";
    const KIND: Kind = Kind::Scope;
    type Value = Scope;
    type Owner = Shared;
}

/// Texts that the caller lends.
///
/// # Safety
///
/// `texts` is NULL, if `n` is 0, or points to `n` C strings.
unsafe fn owned_texts(
    texts: *const *const c_char,
    n: usize,
    name: &'static str,
) -> Result<Vec<String>> {
    // SAFETY: by this function's contract.
    let texts = unsafe { list(texts, n, name) }?.iter();
    // SAFETY: as above.
    texts
        .map(|each| unsafe { text(*each, name) }.map(str::to_owned))
        .collect()
}

/// A root: `name` names its graph, `class_name` is for people, `inputs` are the names of its forward's arguments, and
/// `parameters` the attribute paths ("layers.0.weight") of all parameters and buffers below it. The inside of an
/// `opaque` one (compiled code) is not looked at. `out` receives a new root; free it with gp_root_free.
///
/// Thread: any. NULL: inputs and parameters with their number 0. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// Texts are NULL or C strings, lists NULL or as long as said; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_root_new(
    name: *const c_char,
    class_name: *const c_char,
    inputs: *const *const c_char,
    n_inputs: usize,
    parameters: *const *const c_char,
    n_parameters: usize,
    opaque: bool,
    out: *mut *mut gp_root,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let class_name = text(class_name, "class_name")?;
        let scope = Scope::new("", "", class_name, owned_texts(inputs, n_inputs, "inputs")?);
        let scope = scope.opaque(opaque);
        let parameters = owned_texts(parameters, n_parameters, "parameters")?;
        let root = Root::new(Arc::new(scope), text(name, "name")?, parameters);
        give(out, Arc::new(root))
    })
}

/// Frees a root; runs of it go on. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_root_free(root: *mut gp_root) {
    free(root);
}

/// A scope: `module_path` is the module's attribute path below the nearest enclosing module that is called,
/// `absolute_path` the one below the root; the rest is as in gp_root_new. `out` receives a new scope; free it with
/// gp_scope_free.
///
/// Thread: any. NULL: inputs with `n_inputs` 0. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// Texts are NULL or C strings, `inputs` NULL or as long as said; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_new(
    module_path: *const c_char,
    absolute_path: *const c_char,
    class_name: *const c_char,
    inputs: *const *const c_char,
    n_inputs: usize,
    opaque: bool,
    out: *mut *mut gp_scope,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = Scope::new(
            text(module_path, "module_path")?,
            text(absolute_path, "absolute_path")?,
            text(class_name, "class_name")?,
            owned_texts(inputs, n_inputs, "inputs")?,
        );
        give(out, Arc::new(scope.opaque(opaque)))
    })
}

/// Frees a scope; calls of it go on. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_scope_free(scope: *mut gp_scope) {
    free(scope);
}
