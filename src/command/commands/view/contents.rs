//! What a page is made of: graphs, and the values and the sweep that belong to them.

use std::path::Path;

use graphpatch_core::graph::{Graph, GraphFile};
use graphpatch_core::path::NodePath;

use super::compared::Compared;
use super::data::Data;
use super::names::name_of;
use super::sweep::Sweep;
use super::{page, values};
use crate::commands::show::hint;
use crate::commands::sweep::table::Table;
use crate::voice::Stop;

pub struct Contents<'a> {
    /// Where the graphs come from, as the page and errors say it.
    pub name: &'a str,
    pub graphs: &'a [Graph],
    /// The node to begin at.
    pub start: &'a NodePath,
    /// Values that `graphpatch run --save` wrote.
    pub values: Option<&'a Path>,
    /// A table that `graphpatch sweep` wrote.
    pub sweep: Option<&'a Path>,
    /// Another recording, which is compared.
    pub compare: Option<&'a Path>,
    /// The values of the other recording.
    pub compare_values: Option<&'a Path>,
}

/// A page, and what a person should know of it.
pub struct Page {
    pub html: String,
    pub notes: Vec<String>,
}

impl Contents<'_> {
    /// Makes the page.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, or have nothing in common with the graphs; a node to begin at that is not there.
    pub fn page(&self) -> Result<Page, Stop> {
        let start = self
            .known()?
            .first()
            .map_or_else(NodePath::root, |graph| graph.canonical(self.start));
        let values = match self.values {
            Some(file) => values::load(file)?,
            None => Vec::new(),
        };
        let (data, lost) = Data::new(self.name.to_owned(), &start, self.graphs, &values);
        if let Some(file) = self.values.filter(|_| lost.len() == values.len()) {
            let why = "none of its keys is the path of a node of this graph";
            return Err(Stop::usage(format!("{}: {why}", file.display())));
        }
        let mut notes: Vec<String> = lost
            .iter()
            .map(|key| format!("{key}: no node of this graph; its values are left out"))
            .collect();
        let data = data.with_sweep(self.swept(&mut notes)?);
        let others = match self.compare_values {
            Some(file) => values::load(file)?,
            None => Vec::new(),
        };
        let data = data.with_compared(self.compared()?, self.graphs, &others);
        let html = page::html(self.name, &data)?;
        Ok(Page { html, notes })
    }

    /// The graphs that have the node to begin at.
    pub fn known(&self) -> Result<Vec<&Graph>, Stop> {
        let exists = |graph: &&Graph| match self.start.dig.is_empty() {
            true => graph.node(self.start).is_some(),
            false => graph.value(self.start).is_some(),
        };
        let known: Vec<&Graph> = self.graphs.iter().filter(exists).collect();
        if known.is_empty() && !self.start.is_root() {
            let hint = hint(self.graphs, self.start);
            return Err(Stop::usage(format!(
                "{}: no node {}{hint}",
                self.name, self.start
            )));
        }
        Ok(known)
    }

    fn compared(&self) -> Result<Option<Compared>, Stop> {
        let Some(file) = self.compare else {
            return Ok(None);
        };
        let others = GraphFile::load(file)?.graphs;
        Ok(Some(Compared::of(name_of(file), self.graphs, &others)))
    }

    fn swept(&self, notes: &mut Vec<String>) -> Result<Option<Sweep>, Stop> {
        let Some(file) = self.sweep else {
            return Ok(None);
        };
        let (sweep, lost) = Sweep::of(&Table::load(file)?, self.graphs);
        if sweep.is_empty() {
            let why = "none of its nodes is a node of this graph";
            return Err(Stop::usage(format!("{}: {why}", file.display())));
        }
        let line = |node: &_| format!("{node}: no node of this graph; its cell is left out");
        notes.extend(lost.iter().map(line));
        Ok(Some(sweep))
    }
}
