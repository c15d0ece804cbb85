//! gp_node: what a graph knows of one of its nodes or of an element of a container, and the way from one to the next.

use std::ffi::c_char;

use super::arguments::{null, text, wrong};
use super::graphs::{gp_graphs, no_node, path_or_root};
use super::handle::reference;
use super::sized::{self, Grows};
use super::{Status, guard, string};
use graphpatch_core::error::Result;
use graphpatch_core::graph::{Graph, Kind, Query, Value};
use graphpatch_core::path::NodePath;

/// What a node stands for. Since 0.1.0.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum gp_node_kind {
    /// An argument of the scope's forward.
    Input = 1,
    /// A parameter or buffer of the scope's module.
    Parameter = 2,
    /// An operation.
    Op = 3,
    /// A call of a module; its children are nodes.
    Scope = 4,
    /// What the scope returned.
    Output = 5,
    /// No node, but an element of the container that a node's value is.
    Element = 6,
}

/// What a value is, each as a bit of its own: several add up to all that was seen. Since 0.1.0.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum gp_value_kind {
    Tensor = 1,
    Int = 2,
    Float = 4,
    Bool = 8,
    Complex = 16,
    Str = 32,
    /// Python's None, and an undefined tensor.
    None = 64,
    Tuple = 128,
    List = 256,
    Dict = 512,
    /// Any other type.
    Other = 1024,
}

/// What is known of a node, or of an element of a container. Since 0.1.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gp_node {
    /// To be set by the caller: sizeof(gp_node).
    size: usize,
    /// What it stands for: a gp_node_kind.
    kind: u32,
    /// What its value is: a gp_value_kind; 0 for a scope, which has none. Where runs gave values of several kinds, the
    /// first tensor or container among them, or else the first one.
    value: u32,
    /// All kinds of values that runs gave, as the bits of gp_value_kind; 0 for a scope.
    seen: u32,
    /// How many dimensions the value has, where it is a tensor; gp_graphs_sizes says their sizes.
    rank: u32,
    /// How many children a scope has, or how many elements a container.
    children: usize,
}

// SAFETY: repr(C); a usize, four numbers of four bytes and a usize leave no padding.
unsafe impl Grows for gp_node {
    const FIRST: usize = 32;
}

/// The number that stands for a kind of value; all of them for a value that was of several kinds.
fn bits(value: &Value) -> u32 {
    let kind = match value {
        Value::Tensor(_) => gp_value_kind::Tensor,
        Value::Int => gp_value_kind::Int,
        Value::Float => gp_value_kind::Float,
        Value::Bool => gp_value_kind::Bool,
        Value::Complex => gp_value_kind::Complex,
        Value::Str => gp_value_kind::Str,
        Value::None | Value::Undefined => gp_value_kind::None,
        Value::Tuple(_) => gp_value_kind::Tuple,
        Value::List(_) => gp_value_kind::List,
        Value::Dict(_) => gp_value_kind::Dict,
        Value::Other(_) => gp_value_kind::Other,
        Value::Mixed(kinds) => return kinds.iter().fold(0, |all, kind| all | bits(kind)),
    };
    kind as u32
}

/// The one that is told of a value that was of several kinds: the first tensor or container, or else the first one.
fn foremost(value: &Value) -> &Value {
    let Value::Mixed(kinds) = value else {
        return value;
    };
    let has_parts = |kind: &&Value| {
        matches!(
            kind,
            Value::Tensor(_) | Value::Tuple(_) | Value::List(_) | Value::Dict(_)
        )
    };
    let found = kinds.iter().find(has_parts).or(kinds.first());
    found.unwrap_or(value)
}

fn describe(graph: &Graph, path: &NodePath) -> Result<gp_node> {
    let node = graph.node(path).ok_or_else(|| no_node(graph, path))?;
    let kind = match node.kind {
        _ if !path.dig.is_empty() => gp_node_kind::Element,
        Kind::Input => gp_node_kind::Input,
        Kind::Parameter => gp_node_kind::Parameter,
        Kind::Op => gp_node_kind::Op,
        Kind::Scope => gp_node_kind::Scope,
        Kind::Output => gp_node_kind::Output,
    };
    let mut described = gp_node {
        size: size_of::<gp_node>(),
        kind: kind as u32,
        value: 0,
        seen: 0,
        rank: 0,
        children: node.children.len(),
    };
    if node.is_scope() && path.dig.is_empty() {
        return Ok(described);
    }
    let value = graph.value(path).ok_or_else(|| no_node(graph, path))?;
    let shown = foremost(&value);
    described.value = bits(shown);
    described.seen = bits(&value);
    described.children = value.elements().len();
    if let Value::Tensor(info) = shown {
        described.rank = info.shape.len() as u32;
    }
    Ok(described)
}

/// What is known of the node at `path` (NULL or "": the root) in graph number `index`, or with a dig of the element
/// there. Begin `out` with GP_NODE_INIT.
///
/// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or points to a gp_node that says its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_node(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut gp_node,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        sized::check(out, "out")?;
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        sized::fill(out, "out", describe(graph, &path_or_root(path)?)?)
    })
}

/// The sizes of the tensor at `path` (with a dig, of the element) in graph number `index`, over all runs: for each of
/// its dimensions, which gp_graphs_node counts as `rank`, the smallest and the largest one that was seen. `n` says how many
/// numbers `smallest` and `largest` take. Nothing is written for what is no tensor. GP_STATUS_ARGUMENT where `n` is less
/// than the rank; GP_STATUS_PATH for no such node.
///
/// Thread: any. NULL: path, and smallest and largest with `n` 0. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `smallest` and `largest` are NULL or take `n` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_sizes(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    smallest: *mut i64,
    largest: *mut i64,
    n: usize,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        for (place, name) in [(smallest, "smallest"), (largest, "largest")] {
            if place.is_null() && n != 0 {
                return Err(null(name));
            }
        }
        let path = path_or_root(path)?;
        let Some(value) = graph.value(&path) else {
            return describe(graph, &path).map(drop);
        };
        let Value::Tensor(info) = foremost(&value) else {
            return Ok(());
        };
        if n < info.shape.len() {
            let why = format!("is {n}, of {} dimensions", info.shape.len());
            return Err(wrong("n", why));
        }
        for (at, dim) in info.shape.iter().enumerate() {
            smallest.add(at).write(dim.min);
            largest.add(at).write(dim.max);
        }
        Ok(())
    })
}

/// Child number `number` of the scope at `path` (NULL or "": the root) in graph number `index`, or element number `number`
/// of the container there, counted from 0. `name` (may be NULL) receives its name, new text, and `child` its path from
/// the root, new text; free both with gp_string_free. The key "" of a dict has no path: `child` is then one that is
/// refused wherever a path is read. GP_STATUS_ARGUMENT where it has not so many.
///
/// Thread: any. NULL: path, name. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `name` is NULL or may be written, and so is `child`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_child(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    number: usize,
    name: *mut *mut c_char,
    child: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        if child.is_null() {
            return Err(null("child"));
        }
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let path = graph.canonical(&path_or_root(path)?);
        let found = graph.nth_below(&path, number);
        let (count, found) = found.ok_or_else(|| no_node(graph, &path))?;
        let Some(found) = found else {
            return Err(wrong("number", format!("is {number}, of {count}")));
        };
        if !name.is_null() {
            let own = found.dig.last().or(found.names.last());
            string::give(name, "name", own.map_or("", String::as_str))?;
        }
        string::give(child, "child", &found.to_string())
    })
}

/// The path, as the graph itself writes it, of what `below` names as seen from the node at `path` (NULL or "": the root) in
/// graph number `index`: `linear_0`, the first call of a module that was called more than once, becomes `linear`. Names
/// after a container's are those of elements, whether a `|` or a `.` stands before them. `out` receives new text; free
/// it with gp_string_free. GP_STATUS_PATH says what there is instead.
///
/// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `below` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_find(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    below: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let (path, below) = (path_or_root(path)?, text(below, "below")?);
        if graph.below(&path).is_none() {
            return Err(no_node(graph, &path));
        }
        let found = graph.find_below(&graph.canonical(&path), below)?;
        string::give(out, "out", &found.to_string())
    })
}

/// The paths in graph number `index`, one a line, of what fits all that is asked for; NULL asks for nothing. `pattern` is a
/// path with `*` (anything within a name), `**` (any names), `?`, `[0-5]` and `{a,b}`; `op` an operation's schema
/// (`aten::add.Tensor`) or its name (`add`); `module` a class, whole or its last part (`Linear`): its calls; `shape`
/// sizes as `graphpatch show --shape` reads them (`*,768`, `...` for any): only tensors, also those in containers, one by
/// one. A path in which a line break stands is left out. `out` receives new text, empty where nothing fits; free it with
/// gp_string_free.
///
/// Thread: any. NULL: pattern, op, module, shape. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `pattern`, `op`, `module` and `shape` are NULL or C strings; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_search(
    graphs: *const gp_graphs,
    index: usize,
    pattern: *const c_char,
    op: *const c_char,
    module: *const c_char,
    shape: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let given = |asked: *const c_char, name| match asked.is_null() {
            true => Ok(None),
            false => text(asked, name).map(Some),
        };
        let query = Query {
            text: None,
            pattern: given(pattern, "pattern")?.map(str::parse).transpose()?,
            op: given(op, "op")?.map(str::to_owned),
            module: given(module, "module")?.map(str::to_owned),
            shape: given(shape, "shape")?.map(str::parse).transpose()?,
        };
        let hits = graph.search(&NodePath::root(), &query).into_iter();
        let paths: Vec<String> = hits
            .map(|hit| hit.path.to_string())
            .filter(|path| !path.contains('\n'))
            .collect();
        string::give(out, "out", &paths.join("\n"))
    })
}
