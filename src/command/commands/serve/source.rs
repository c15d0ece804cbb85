//! What the page is made of.

use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_core::error::Error;
use graphpatch_core::graph::GraphFile;
use graphpatch_core::path::NodePath;
use graphpatch_protocol::live::Request;
use parking_lot::Mutex;
use serde_json::Value;

use crate::commands::live::connection::Connection;
use crate::commands::live::processes;
use crate::commands::view::contents::{Contents, Page};
use crate::commands::view::names::name_of;
use crate::voice::{Stop, say};

/// What the page is asked to show.
#[derive(Args)]
pub struct Arguments {
    /// A graph saved by `graphpatch run --graph`, or the number of a process that `graphpatch live` lists
    #[arg(value_name = "GRAPH|PID")]
    what: PathBuf,
    /// The node to begin at
    #[arg(default_value = "")]
    path: NodePath,
    /// Values that `graphpatch run --probe --save` wrote: norms and histograms in the page
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// A table that `graphpatch sweep -o TABLE.json` wrote: its heat map in the page
    #[arg(long, value_name = "TABLE")]
    sweep: Option<PathBuf>,
    /// Another recording of the model: what differs there, in the tree and beside each node
    #[arg(long, value_name = "GRAPH")]
    compare: Option<PathBuf>,
    /// With --compare: the values that were saved with it, beside those of --values
    #[arg(long, value_name = "FILE", requires = "compare")]
    compare_values: Option<PathBuf>,
}

pub struct Source {
    from: From,
    arguments: Arguments,
}

enum From {
    File(PathBuf),
    /// Its runs are recorded as long as the connection is there.
    Process(Mutex<Connection>),
}

impl Source {
    /// A file, or, where there is no such file and it is a number, a process.
    pub fn of(arguments: Arguments) -> Result<Source, Stop> {
        let number = arguments.what.to_str().and_then(|text| text.parse().ok());
        let from = match number.filter(|_| !arguments.what.exists()) {
            Some(pid) => From::Process(Mutex::new(recording(pid)?)),
            None => From::File(arguments.what.clone()),
        };
        Ok(Source { from, arguments })
    }

    pub fn name(&self) -> String {
        match &self.from {
            From::File(file) => name_of(file),
            From::Process(connection) => format!("process {}", connection.lock().process.pid),
        }
    }

    /// The page as it is now.
    pub fn page(&self) -> Result<Page, Stop> {
        let graphs = match &self.from {
            From::File(file) => GraphFile::load(file)?,
            From::Process(connection) => recorded(&mut connection.lock())?,
        };
        let contents = Contents {
            name: &self.name(),
            graphs: &graphs.graphs,
            start: &self.arguments.path,
            values: self.arguments.values.as_deref(),
            sweep: self.arguments.sweep.as_deref(),
            compare: self.arguments.compare.as_deref(),
            compare_values: self.arguments.compare_values.as_deref(),
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
