//! What was recorded, read by path.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::Path;
use std::ptr::{null, null_mut};

use graphpatch_sys::{
    gp_graphs, gp_graphs_code, gp_graphs_count, gp_graphs_free, gp_graphs_load, gp_graphs_name,
    gp_graphs_save, gp_graphs_search, gp_graphs_shape, gp_graphs_tree,
};

use crate::error::{Error, Result, c_text, check, text};

/// Graphs at one moment, one for each root. They do not change with the session that they came from.
pub struct Graphs(*mut gp_graphs);

// SAFETY: any thread may read them, says the header.
unsafe impl Send for Graphs {}
unsafe impl Sync for Graphs {}

// SAFETY, for all calls below: the graphs live, texts are C strings, and results may be written.
impl Graphs {
    /// # Safety
    ///
    /// `graphs` was handed over: nobody else frees it.
    pub(crate) unsafe fn new(graphs: *mut gp_graphs) -> Self {
        Self(graphs)
    }

    /// Those of a file that [`Graphs::save`] or `graphpatch run --graph` has written.
    pub fn load(file: impl AsRef<Path>) -> Result<Self> {
        let (file, mut graphs) = (c_path(file.as_ref())?, null_mut());
        check(unsafe { gp_graphs_load(file.as_ptr(), &mut graphs) })?;
        Ok(Self(graphs))
    }

    /// Writes them for `graphpatch show` and `graphpatch view`.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<()> {
        let file = c_path(file.as_ref())?;
        check(unsafe { gp_graphs_save(self.0, file.as_ptr()) })
    }

    pub fn iter(&self) -> impl Iterator<Item = Graph<'_>> {
        let count = unsafe { gp_graphs_count(self.0) };
        (0..count).map(|index| Graph {
            graphs: self,
            index,
        })
    }

    /// The graph of this name.
    pub fn get(&self, name: &str) -> Option<Graph<'_>> {
        self.iter().find(|graph| graph.name() == name)
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        unsafe { gp_graphs_free(self.0) }
    }
}

fn c_path(file: &Path) -> Result<CString> {
    let text = file.to_str();
    c_text(text.ok_or_else(|| Error::argument(format!("{} is no UTF-8", file.display())))?)
}

/// One of [`Graphs`]. Printed, it is the tree.
#[derive(Clone, Copy)]
pub struct Graph<'graphs> {
    graphs: &'graphs Graphs,
    index: usize,
}

impl Graph<'_> {
    /// What it was recorded of: class and method, or the name that the program gave.
    pub fn name(&self) -> String {
        let name = unsafe { CStr::from_ptr(gp_graphs_name(self.graphs.0, self.index)) };
        name.to_string_lossy().into_owned()
    }

    /// The tree at `path`; all of it for an empty one.
    pub fn tree(&self, path: &str) -> Result<String> {
        let path = c_text(path)?;
        text(|out| unsafe { gp_graphs_tree(self.graphs.0, self.index, path.as_ptr(), out) })
    }

    /// A scope as a function with one line for each node; of another node the place in the source.
    pub fn code(&self, path: &str) -> Result<String> {
        let path = c_text(path)?;
        text(|out| unsafe { gp_graphs_code(self.graphs.0, self.index, path.as_ptr(), out) })
    }

    /// What was seen of a value, as the tree shows it: `Tensor(1, 5..128, 768)`.
    pub fn shape(&self, path: &str) -> Result<String> {
        let path = c_text(path)?;
        text(|out| unsafe { gp_graphs_shape(self.graphs.0, self.index, path.as_ptr(), out) })
    }

    /// The paths that fit a pattern such as `layers_*.softmax`.
    pub fn find(&self, pattern: &str) -> Result<Vec<String>> {
        let pattern = c_text(pattern)?;
        let found = text(|out| unsafe {
            let (graphs, pattern) = (self.graphs.0, pattern.as_ptr());
            gp_graphs_search(graphs, self.index, pattern, null(), null(), null(), out)
        })?;
        Ok(found.lines().map(str::to_owned).collect())
    }
}

impl fmt::Display for Graph<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.tree("").map_err(|_| fmt::Error)?)
    }
}
