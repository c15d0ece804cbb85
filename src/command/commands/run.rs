//! `graphpatch run`: checks everything that can be checked, then starts the program with the library preloaded.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::launch::process::launch;
use clap::Args;
use graphpatch_core::graph::GraphFile;
use graphpatch_core::patch::{OnError, PatchSpec};
use graphpatch_loader::{DISABLE_VARIABLE, is_disabled};

use crate::commands::check;
use crate::launch::outcome::Outcome;
use crate::launch::outputs::{self, Content, Input, Output};
use crate::launch::start;
use crate::launch::wanted::Wanted;
use crate::patch_arguments::PatchArguments;
use crate::run_options::RunOptions;
use crate::voice::{Stop, say};

/// Run PROGRAM, record its models' NodePath graph, patch values on the way
#[derive(Args)]
pub struct Run {
    /// Print the NodePath tree on stderr when PROGRAM ends
    #[arg(long)]
    tree: bool,
    /// Save the recorded graph as JSON
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    #[command(flatten)]
    asked: PatchArguments,
    /// Where the values of probes and records go (safetensors)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    manner: RunOptions,
    /// Print a table of the patches: matched, applied, failed, kept
    #[arg(long)]
    summary: bool,
    /// Check all paths against a saved graph before PROGRAM starts
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> Result<u8, Stop> {
        if is_disabled() {
            return self.run_alone();
        }
        let patches = self.asked.specs()?;
        check_save(&patches, self.save.as_deref())?;
        self.manner.check()?;
        self.check_files(&patches)?;
        if let Some(file) = &self.against {
            check::against(&GraphFile::load(file)?.graphs, &patches)?;
        }
        start::check_program(&self.command)?;
        let dir = start::directory()?;
        let record = self.tree || self.graph.is_some();
        let options = self
            .manner
            .options(record, &patches, dir.path(), OnError::Skip)?;
        let library = start::library(dir.path())?;
        let mut command = start::command(&self.command, &options, &library)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let status =
            launch(&mut command).map_err(|why| Stop::usage(format!("{program}: {why}")))?;

        let wanted = Wanted {
            tree: self.tree,
            summary: self.summary,
            graph: self.graph,
            save: self.save,
            patches,
            program,
            run_at: self.manner.run_at,
        };
        let outcome = Outcome::read(dir.path());
        outcome.tell(&wanted, start::exit_code(status))
    }
}

impl Run {
    /// Becomes the program, which the environment wants to run without us.
    fn run_alone(&self) -> Result<u8, Stop> {
        start::check_program(&self.command)?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Stop::usage("no PROGRAM"));
        };
        let name = Path::new(program).display();
        say(format!(
            "{DISABLE_VARIABLE} is set: {name} runs without libgraphpatch"
        ));
        let why = Command::new(program).args(arguments).exec();
        Err(Stop::usage(format!("{name}: {why}")))
    }

    fn check_files(&self, patches: &[PatchSpec]) -> Result<(), Stop> {
        let graph = self.graph.iter().map(|file| Output {
            option: "--graph",
            file,
            content: Content::Graph,
        });
        let values = self.save.iter().map(|file| Output {
            option: "--save",
            file,
            content: Content::Values,
        });
        let outputs: Vec<Output<'_>> = graph.chain(values).collect();
        let mut inputs: Vec<Input> = outputs::inputs_of(&self.command).collect();
        inputs.extend(self.asked.inputs(patches));
        let against = self.against.iter();
        inputs.extend(against.map(|file| Input::new("--against", file)));
        outputs::check(&outputs, &inputs)
    }
}

/// Refuses probes and records without a file for their values, and such a file without probes and records.
fn check_save(patches: &[PatchSpec], save: Option<&Path>) -> Result<(), Stop> {
    match (patches.iter().find(|patch| patch.kind.keeps()), save) {
        (Some(patch), None) => Err(Stop::usage(format!(
            "{patch}: nothing says where its values go; add --save FILE"
        ))),
        (None, Some(_)) => Err(Stop::usage(
            "--save: there are no values to save; add --probe PATH or --record PATH",
        )),
        _ => Ok(()),
    }
}
