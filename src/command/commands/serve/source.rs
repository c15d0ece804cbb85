//! What the page is made of.

use std::path::{Path, PathBuf};

use graphpatch_core::error::Error;
use graphpatch_core::graph::GraphFile;
use graphpatch_core::path::NodePath;
use graphpatch_protocol::live::Request;
use parking_lot::Mutex;
use serde_json::Value;

use crate::commands::live::connection::Connection;
use crate::commands::live::processes;
use crate::commands::view::contents::{Contents, Page, name_of};
use crate::voice::{Stop, say};

pub struct Source {
    pub origin: Origin,
    /// The node to begin at.
    pub start: NodePath,
    pub values: Option<PathBuf>,
    pub sweep: Option<PathBuf>,
    pub compare: Option<PathBuf>,
    pub compare_values: Option<PathBuf>,
}

/// Where the graphs come from.
pub enum Origin {
    File(PathBuf),
    /// Its runs are recorded as long as the connection is there.
    Process(Mutex<Connection>),
}

impl Origin {
    /// A file, or, where there is no such file and it is a number, a process.
    pub fn of(what: PathBuf) -> Result<Origin, Stop> {
        let number = what.to_str().and_then(|text| text.parse().ok());
        match number.filter(|_| !what.exists()) {
            Some(pid) => Ok(Origin::Process(Mutex::new(recording(pid)?))),
            None => Ok(Origin::File(what)),
        }
    }
}

impl Source {
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::File(file) => name_of(file),
            Origin::Process(connection) => format!("process {}", connection.lock().process.pid),
        }
    }

    /// The page as it is now.
    pub fn page(&self) -> Result<Page, Stop> {
        let graphs = match &self.origin {
            Origin::File(file) => GraphFile::load(file)?,
            Origin::Process(connection) => recorded(&mut connection.lock())?,
        };
        let contents = Contents {
            name: &self.name(),
            graphs: &graphs.graphs,
            start: &self.start,
            values: self.values.as_deref(),
            sweep: self.sweep.as_deref(),
            compare: self.compare.as_deref(),
            compare_values: self.compare_values.as_deref(),
        };
        contents.page()
    }
}

/// A connection to the process, which records its runs from now on.
fn recording(pid: u32) -> Result<Connection, Stop> {
    let mut connection = processes::choose(Some(pid))?;
    connection.ask(&Request::Recording {
        on: true,
        hold: true,
    })?;
    if recorded(&mut connection)?.graphs.is_empty() {
        say(format!(
            "process {pid} has recorded nothing yet: reload the page after its next run"
        ));
    }
    Ok(connection)
}

fn recorded(connection: &mut Connection) -> Result<GraphFile, Stop> {
    let answer = connection.ask(&Request::Graph {})?;
    let graph = answer.get("graph").unwrap_or(&Value::Null);
    let bytes = serde_json::to_vec(graph).map_err(|why| Error::Internal(why.to_string()))?;
    let name = format!("process {}", connection.process.pid);
    Ok(GraphFile::read(&bytes, Path::new(&name))?)
}
