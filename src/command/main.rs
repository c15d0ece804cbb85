//! The command `graphpatch`: flags in, text and files out. What it knows of graphs and patches is `graphpatch_core`'s.
//!
//! | module | owns |
//! |---|---|
//! | [`commands`] | one file or folder for each subcommand |
//! | [`columns`] | tables as Parquet files |
//! | [`launch`] | how `run` and `sweep` start programs, and what they report afterwards |
//! | [`patch_arguments`] | `--patch`, `--patches`, `--probe`, `--record` |
//! | [`run_options`] | `--on-error`, `--operations`, `--run-at` |
//! | [`terminal`] | colors |
//! | [`voice`] | messages, results, exit codes |

mod columns;
mod commands;
mod launch;
mod patch_arguments;
mod run_options;
mod terminal;
mod voice;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use commands::{
    attach, bisect, check, complete, demo, diff, doctor, live, mcp, merge, run, serve, show, sweep,
    view,
};
use voice::{USAGE, finish, print, say, show_on_stderr};

const EXAMPLES: &str = "\
Examples:
  graphpatch demo                                             a real model, in a minute
  graphpatch run --tree ./infer model.pt                      every tensor operation by name
  graphpatch run --patch 'fc.output[0]=zero' ./infer model.pt
  graphpatch doctor -- ./infer                                where nothing is seen
Exit codes: the program's own; 2 for bad options, paths or files; 3 where a patch never matched or failed.";

/// The text of `--version`: the version, and how this command was built.
fn long_version() -> String {
    let commit = match option_env!("GRAPHPATCH_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("commit   {commit}\n"),
        _ => String::new(),
    };
    format!(
        "{}\n{commit}libtorch {}\nABI      {}",
        env!("CARGO_PKG_VERSION"),
        graphpatch_loader::supported(),
        env!("GRAPHPATCH_ABI"),
    )
}

/// Look inside, and patch, the tensors of any running libtorch model.
#[derive(Parser)]
#[command(name = "graphpatch", version, long_version = long_version(), after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    Run(run::Run),
    Live(live::Live),
    Attach(attach::Attach),
    Sweep(sweep::Sweep),
    Show(show::Show),
    View(view::View),
    Serve(serve::Serve),
    Complete(complete::Complete),
    Diff(diff::Diff),
    Merge(merge::Merge),
    Bisect(bisect::Bisect),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Mcp(mcp::Mcp),
    Demo(demo::Demo),
}

/// Says what is wrong with the arguments. Without a subcommand the help is shown, which is no message.
fn complain(error: &clap::Error) {
    let text = error.render().to_string();
    match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => show_on_stderr(&text),
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            say(text.replace(
                "invalid digit found in string",
                "a whole number is expected",
            ));
        }
    }
}

fn main() -> ExitCode {
    launch::process::survive_file_limits();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
        Err(help) => return finish(print(&help.render().to_string()).map(|()| 0)),
    };
    finish(match cli.command {
        Sub::Run(arguments) => arguments.run(),
        Sub::Live(arguments) => arguments.run(),
        Sub::Attach(arguments) => arguments.run(),
        Sub::Sweep(arguments) => arguments.run(),
        Sub::Show(arguments) => arguments.run(),
        Sub::View(arguments) => arguments.run(),
        Sub::Serve(arguments) => arguments.run(),
        Sub::Complete(arguments) => arguments.run(Cli::command()),
        Sub::Diff(arguments) => arguments.run(),
        Sub::Merge(arguments) => arguments.run(),
        Sub::Bisect(arguments) => arguments.run(),
        Sub::Check(arguments) => arguments.run(),
        Sub::Doctor(arguments) => arguments.run(),
        Sub::Mcp(arguments) => arguments.run(),
        Sub::Demo(arguments) => arguments.run(),
    })
}
