//! The command `graphpatch`: a door to the library, no logic of its own.
//!
//! | file | subcommand |
//! |---|---|
//! | `run.rs` | `run`: checks everything, starts the program with the library preloaded; `outcome.rs` tells what came of it |
//! | `start.rs`, `manner.rs`, `python.rs` | how `run` and `sweep` start a program, and Python programs |
//! | `sweep/` | `sweep` |
//! | `show.rs` | `show`; `terminal.rs` has its colors |
//! | `diff.rs` | `diff` |
//! | `view/` | `view` |
//! | `complete.rs` | `complete` |
//! | `check.rs` | `check`, and the check that `run --against` does |
//! | `asked.rs` | `--patch`, `--patches`, `--probe`, `--record` of both |
//! | `kept.rs`, `summary.rs` | what `run --save` saves, what `run --summary` prints |
//! | `doctor.rs` | `doctor` |
//! | `library.rs` | where `libgraphpatch.so` is |
//!
//! Results go to stdout (of `show`, `diff`, `complete`, `doctor`); everything else to stderr, each message behind `graphpatch: `.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod asked;
mod check;
mod complete;
mod diff;
mod doctor;
mod kept;
mod library;
mod manner;
mod outcome;
mod python;
mod run;
mod show;
mod start;
mod summary;
mod sweep;
mod terminal;
mod view;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Bad options, paths or files.
const USAGE: u8 = 2;

/// Look inside, and patch, the tensors of any running libtorch model.
#[derive(Parser)]
#[command(name = "graphpatch", version)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    Run(run::Run),
    Sweep(sweep::Sweep),
    Show(show::Show),
    View(view::View),
    Complete(complete::Complete),
    Diff(diff::Diff),
    Check(check::Check),
    Doctor(doctor::Doctor),
}

/// Why the command ends early: a message, and the exit code.
#[cfg_attr(test, derive(Debug))]
struct Stop {
    message: String,
    code: u8,
}

impl Stop {
    fn usage(message: impl Display) -> Stop {
        Stop {
            message: message.to_string(),
            code: USAGE,
        }
    }
}

impl From<graphpatch::error::Error> for Stop {
    fn from(error: graphpatch::error::Error) -> Stop {
        Stop::usage(error)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            say(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            return ExitCode::from(USAGE);
        }
        Err(help) => return finish(print(&help.render().to_string()).map(|()| 0)),
    };
    finish(match cli.command {
        Sub::Run(arguments) => arguments.run(),
        Sub::Sweep(arguments) => arguments.run(),
        Sub::Show(arguments) => arguments.run(),
        Sub::View(arguments) => arguments.run(),
        Sub::Complete(arguments) => arguments.run(),
        Sub::Diff(arguments) => arguments.run(),
        Sub::Check(arguments) => arguments.run(),
        Sub::Doctor(arguments) => arguments.run(),
    })
}

fn finish(result: Result<u8, Stop>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(stop) => {
            if !stop.message.is_empty() {
                say(&stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

/// A message to the user.
fn say(message: impl Display) {
    show_on_stderr(&format!("graphpatch: {message}\n"));
}

/// Text as it is, on stderr. A stderr that is closed is no error.
fn show_on_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A result, on stdout. A reader that has seen enough (`| head`) ends the command quietly, as a signal would.
fn print(text: &str) -> Result<(), Stop> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Err(Stop {
            message: String::new(),
            code: 141,
        }),
        Err(why) => Err(Stop {
            message: format!("stdout: {why}"),
            code: 1,
        }),
        Ok(()) => Ok(()),
    }
}
