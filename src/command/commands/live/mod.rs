//! `graphpatch live`: looks at a program that listens, and patches it while it runs.
//!
//! | file | owns |
//! |---|---|
//! | `arguments` | the commands that there are, with their arguments |
//! | `processes` | which processes listen, and which one is meant |
//! | `connection` | requests out, answers in |
//! | `asks` | what each command asks, and how its answer is shown |
//! | `screen` | the interactive screen |
//! | `watch` | the statistics of a value, again for each new value |

mod arguments;
mod asks;
pub mod connection;
pub mod processes;
mod screen;
mod watch;

use clap::Args;

use arguments::Command;

use crate::terminal;
use crate::voice::{Stop, print};
use std::io::IsTerminal;

const EXAMPLES: &str = "\
Examples:
  graphpatch run --live -- ./server model.pt                  in one terminal; then in another one:
  graphpatch live                                             on a terminal, the screen; else which processes listen
  graphpatch live tree                                        the names that the next run has
  graphpatch live patch 'layers_0.mlp.output[..., 0]=zero'    its number is printed
  graphpatch live off 1
  graphpatch live 4711 watch layers_0.mlp.output              of one process among several";

/// Look at a running program, and patch it: one that `graphpatch run --live` started, or that listens itself
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Live {
    /// The process; may be left out where only one listens. Without a command, an interactive screen on a terminal: the tree
    /// with search, patches to switch, watched values
    pid: Option<u32>,
    /// Print what the process answered, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Live {
    /// On a terminal the screen of the one process that is meant, else a list of all that listen.
    fn show_or_list(&self) -> Result<u8, Stop> {
        let on_terminal = terminal::is_terminal() && std::io::stdin().is_terminal();
        match on_terminal && !self.json {
            true => match processes::only(self.pid)? {
                Some(connection) => screen::show(connection),
                None => processes::list(self.pid, false),
            },
            false => processes::list(self.pid, self.json),
        }
    }

    pub fn run(self) -> Result<u8, Stop> {
        let Some(command) = self.command else {
            return self.show_or_list();
        };
        let mut connection = processes::choose(self.pid)?;
        if let Command::Watch { path, times } = &command {
            return watch::watch(&mut connection, path, *times, self.json);
        }
        let answer = asks::ask(&mut connection, &command)?;
        print(&match self.json {
            true => connection.said,
            false => asks::text(&command, &answer)?,
        })?;
        Ok(0)
    }
}
