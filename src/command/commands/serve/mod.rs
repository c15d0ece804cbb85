//! `graphpatch serve`: the page of `graphpatch view`, made anew whenever a browser asks for it, from a file or from a process that
//! runs. `source.rs` says what it is made of, `http.rs` who gets it.

mod http;
mod source;

use std::net::Ipv4Addr;

use clap::Args;

use crate::commands::view::browser;
use crate::terminal;
use crate::voice::{Stop, print, say};
use http::PageServer;
use source::{Arguments, Source};

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
    #[command(flatten)]
    arguments: Arguments,
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
        let source = Source::of(self.arguments)?;
        // What is wrong now is told before anybody waits for a page.
        source.page()?.notes.iter().for_each(say);
        let server = PageServer::open((Ipv4Addr::LOCALHOST, self.port).into())?;
        print(&format!("{}\n", server.address()))?;
        let opened = !self.no_browser && terminal::is_terminal() && browser::open(server.address());
        let how = if opened {
            "a browser opens it"
        } else {
            "open it in a browser"
        };
        say(format!(
            "{} is served there; {how}; Ctrl-C ends it",
            source.name()
        ));
        server.serve(|| source.page().map(|page| page.html))
    }
}
