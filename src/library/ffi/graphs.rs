//! gp_graphs: recorded or loaded graphs, one for each root that was called.

use std::ffi::{CString, c_char};
use std::path::Path;

use super::arguments::{list, text, wrong};
use super::handle::{self, Boxed, Handle, reference};
use super::session::gp_session;
use super::slots::Kind;
use super::{Status, guard, string};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph::{self, Graph, GraphFile};
use graphpatch_core::path::NodePath;

/// Graphs at one moment; they do not change with the session they came from. Any thread may read them. Since 0.1.0.
pub struct gp_graphs {
    _opaque: [u8; 0],
}

impl Handle for gp_graphs {
    const NAME: &'static str = "graphs";
    const KIND: Kind = Kind::Graphs;
    type Value = Graphs;
    type Owner = Boxed;
}

/// Graphs, and their names as C reads them.
pub(super) struct Graphs {
    file: GraphFile,
    names: Vec<CString>,
}

impl Graphs {
    fn new(file: GraphFile) -> Box<Graphs> {
        let name = |graph: &Graph| CString::new(graph.name.as_str()).unwrap_or_default();
        let names = file.graphs.iter().map(name).collect();
        Box::new(Graphs { file, names })
    }

    pub(super) fn graph(&self, index: usize) -> Result<&Graph> {
        let graphs = &self.file.graphs;
        let why = || format!("is {index}, of {} graphs", graphs.len());
        graphs.get(index).ok_or_else(|| wrong("index", why()))
    }
}

/// What the session recorded so far. `out` receives new graphs; free them with gp_graphs_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_session_graphs(
    session: *const gp_session,
    out: *mut *mut gp_graphs,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(session)?.graphs();
        handle::give(out, Graphs::new(GraphFile::new(graphs)))
    })
}

/// Loads graphs that gp_graphs_save or `graphpatch run --graph` saved. `out` receives new graphs; free them with
/// gp_graphs_free. Errors: GP_STATUS_FILE, GP_STATUS_FORMAT (the message names the place in the file).
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_FILE, GP_STATUS_FORMAT. Since 0.1.0.
///
/// # Safety
///
/// `file` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_load(file: *const c_char, out: *mut *mut gp_graphs) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let file = GraphFile::load(Path::new(text(file, "file")?))?;
        handle::give(out, Graphs::new(file))
    })
}

/// Saves the graphs as JSON; a file that was there is replaced as a whole.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_FILE. Since 0.1.0.
///
/// # Safety
///
/// `file` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_save(graphs: *const gp_graphs, file: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        graphs.file.save(Path::new(text(file, "file")?))
    })
}

/// Frees graphs. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_graphs_free(graphs: *mut gp_graphs) {
    handle::free(graphs);
}

/// How many graphs there are; 0 for NULL.
///
/// Thread: any. NULL: graphs. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_graphs_count(graphs: *const gp_graphs) -> usize {
    reference(graphs).map_or(0, |graphs| graphs.file.graphs.len())
}

/// What graph number `index` was recorded of: class and method of the root. Borrowed from `graphs`; NULL if there is no
/// such graph.
///
/// Thread: any. NULL: graphs. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_graphs_name(graphs: *const gp_graphs, index: usize) -> *const c_char {
    reference(graphs).map_or(std::ptr::null(), |graphs| {
        graphs
            .names
            .get(index)
            .map_or(std::ptr::null(), |name| name.as_ptr())
    })
}

/// The tree of graph number `index` as text, or of its subtree at `path` (NULL or "": the whole). `out` receives new
/// text; free it with gp_string_free.
///
/// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_tree(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { give_text_at(graphs, index, path, out, Graph::tree) })
}

/// The children of the scope at `path` (NULL or "": the root) in graph number `index`, or the elements of the container
/// there, in order, one name a line. `out` receives new text, empty for a leaf; free it with gp_string_free.
///
/// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_children(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let path = path_or_root(path)?;
        let node = graph.node(&path).ok_or_else(|| no_node(graph, &path))?;
        let names: Vec<String> = if node.is_scope() && path.dig.is_empty() {
            let children = node.children.iter();
            children.map(|child| child.name.clone()).collect()
        } else {
            let value = graph.value(&path).ok_or_else(|| no_node(graph, &path))?;
            let elements = value.elements();
            elements.into_iter().map(|(name, _)| name).collect()
        };
        string::give(out, "out", &names.join("\n"))
    })
}

/// What was seen of the value at `path` (with a dig, of the element) in graph number `index`, as the tree shows it:
/// "Tensor(1, 5..128, 768)", "tuple(2)", "int". `out` receives new text; free it with gp_string_free. Errors:
/// GP_STATUS_PARSE; GP_STATUS_PATH for no such node and for a scope.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_shape(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let path: NodePath = text(path, "path")?.parse()?;
        let value = graph.value(&path).ok_or_else(|| no_node(graph, &path))?;
        string::give(out, "out", &value.label())
    })
}

/// The code of the node at `path` (NULL or "": the root) in graph number `index`: a scope as a function with one line
/// for each node, a leaf as the place in the user's source that called it. `out` receives new text; free it with
/// gp_string_free.
///
/// Thread: any. NULL: path. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_code(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { give_text_at(graphs, index, path, out, Graph::code) })
}

/// Graph number `index` as JSON text, as gp_graphs_save writes it into a file's `graphs`. `out` receives new text; free
/// it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_json(
    graphs: *const gp_graphs,
    index: usize,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        let json = serde_json::to_string(graph)
            .map_err(|why| Error::Internal(format!("a graph without JSON: {why}")))?;
        string::give(out, "out", &json)
    })
}

/// A path that may be left out.
///
/// # Safety
///
/// `path` is NULL or a C string.
pub(super) unsafe fn path_or_root(path: *const c_char) -> Result<NodePath> {
    match path.is_null() {
        true => Ok(NodePath::root()),
        // SAFETY: by this function's contract.
        false => unsafe { text(path, "path") }?.parse(),
    }
}

/// What `say` makes of the node at a path that may be left out, as new text in `out`.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
unsafe fn give_text_at(
    graphs: *const gp_graphs,
    index: usize,
    path: *const c_char,
    out: *mut *mut c_char,
    say: impl FnOnce(&Graph, &NodePath) -> Result<String>,
) -> Result<()> {
    // SAFETY: by this function's contract.
    unsafe {
        let graphs = reference(graphs)?;
        let graph = graphs.graph(index)?;
        string::give(out, "out", &say(graph, &path_or_root(path)?)?)
    }
}

/// Why a path names no value, with what is near.
pub(super) fn no_node(graph: &Graph, path: &NodePath) -> Error {
    match graph::check(std::slice::from_ref(graph), std::slice::from_ref(path)) {
        Err(error) => error,
        Ok(()) => Error::Path(format!("{path}: has no value of its own")),
    }
}

/// What may come next after `prefix` (a beginning of a path) in any of the graphs, one full path a line. `out`
/// receives new text; free it with gp_string_free.
///
/// Thread: any. NULL: refused. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// `prefix` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_complete(
    graphs: *const gp_graphs,
    prefix: *const c_char,
    out: *mut *mut c_char,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let (graphs, prefix) = (reference(graphs)?, text(prefix, "prefix")?);
        let mut names: Vec<String> = Vec::new();
        for graph in &graphs.file.graphs {
            for name in graph.completions(prefix) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        string::give(out, "out", &names.join("\n"))
    })
}

/// Whether each of the `n` paths names a leaf of any of the graphs, so that a patch may stand there. GP_STATUS_PATH if
/// not: the message lists every bad path, why, and its nearest valid completions.
///
/// Thread: any. NULL: paths with `n` 0. Errors: GP_STATUS_PARSE, GP_STATUS_PATH. Since 0.1.0.
///
/// # Safety
///
/// `paths` is NULL or points to `n` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_graphs_check(
    graphs: *const gp_graphs,
    paths: *const *const c_char,
    n: usize,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let graphs = reference(graphs)?;
        let paths: Vec<NodePath> = list(paths, n, "paths")?
            .iter()
            .map(|path| text(*path, "paths")?.parse())
            .collect::<Result<_>>()?;
        graph::check(&graphs.file.graphs, &paths)
    })
}
