//! `graphpatch serve`: the page of `graphpatch view`, made anew whenever a browser asks for it, from a file or from a process that
//! runs. `source.rs` says what it is made of, `http.rs` who gets it.

mod http;
mod source;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use graphpatch_core::path::NodePath;

use crate::commands::view::browser;
use crate::terminal;
use crate::voice::{Stop, print, say};
use http::Door;
use source::{Origin, Source};

const EXAMPLES: &str = "\
Examples:
  graphpatch serve g.json                       the page of a saved graph, at an address of this machine
  graphpatch serve g.json --port 8000           at a port of your choice, for a tunnel: ssh -L 8000:127.0.0.1:8000 HOST
  graphpatch run --live -- ./server model.pt    in one terminal; then in another one, with its number:
  graphpatch serve 4711                         what it has recorded so far, again with each reload of the page";

/// The page of a saved graph, or of a running program, at an address of this machine
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Serve {
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
    /// The port; by default one that is free
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Do not open a browser, which happens on a terminal
    #[arg(long)]
    no_browser: bool,
}

impl Serve {
    /// Serves until the command is ended.
    pub fn run(self) -> Result<u8, Stop> {
        let source = Source {
            origin: Origin::of(self.what)?,
            start: self.path,
            values: self.values,
            sweep: self.sweep,
            compare: self.compare,
            compare_values: self.compare_values,
        };
        // What is wrong now is told before anybody waits for a page.
        source.page()?.notes.iter().for_each(say);
        let door = Door::open((Ipv4Addr::LOCALHOST, self.port).into())?;
        print(&format!("{}\n", door.address()))?;
        let opened = !self.no_browser && terminal::is_terminal() && browser::open(door.address());
        let how = if opened {
            "a browser opens it"
        } else {
            "open it in a browser"
        };
        say(format!(
            "{} is served there; {how}; Ctrl-C ends it",
            source.name()
        ));
        door.serve(|| source.page().map(|page| page.html))
    }
}
