//! `graphpatch mcp`: the command for assistants, by the Model Context Protocol on stdin and stdout, a JSON-RPC message a line.
//!
//! | file | owns |
//! |---|---|
//! | `message` | the messages of JSON-RPC |
//! | `tools` | the tools: what a client is told of each, and the command line that a call becomes |
//! | `tools::table` | which tools and parameters there are |
//! | `process` | one call: this command as a child process, its bounded output, its end |
//! | `serving` | requests in, answers out, and the calls that are under way |
//!
//! A call is a process of its own, so its result is what a person would see, and no output of a program gets into the
//! protocol.

mod message;
mod process;
mod serving;
mod tools;

use clap::Args;

use crate::voice::Stop;

const EXAMPLES: &str = "\
Examples:
  graphpatch mcp                what an assistant's settings name as the command of an MCP server
  graphpatch mcp --no-run       the same, without the tool that starts programs";

/// Serve the tools tree, find, code, check, diff and run to an assistant (Model Context Protocol on stdin and stdout)
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Mcp {
    /// Offer no tool that starts programs: only saved graphs are looked at
    #[arg(long)]
    no_run: bool,
}

impl Mcp {
    pub fn run(self) -> Result<u8, Stop> {
        let program = std::env::current_exe()
            .map_err(|why| Stop::usage(format!("this command does not find itself: {why}")))?;
        let tools = tools::table::ALL
            .iter()
            .filter(|tool| !self.no_run || tool.reads);
        serving::serve(&program, &tools.collect::<Vec<_>>())
    }
}
