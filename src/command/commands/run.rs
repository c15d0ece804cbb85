//! `graphpatch run`: checks everything that can be checked, then starts the program with the library preloaded.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::launch::process::launch;
use clap::Args;
use graphpatch_core::graph::GraphFile;
use graphpatch_core::patch::{OnError, PatchSpec};
use graphpatch_core::path::Pattern;
use graphpatch_loader::{DISABLE_VARIABLE, is_disabled, sockets};
use graphpatch_protocol::Options;

use crate::commands::check;
use crate::launch::outcome::Outcome;
use crate::launch::outputs::{self, Content, Input, Output};
use crate::launch::start;
use crate::launch::wanted::Wanted;
use crate::patch_arguments::PatchArguments;
use crate::run_options::RunOptions;
use crate::voice::{Stop, say};

const EXAMPLES: &str = "\
Examples:
  graphpatch run --tree ./infer model.pt                      every tensor operation by name
  graphpatch run --graph g.json python script.py              the same of a Python script, saved
  graphpatch run --patch 'layers_0.mlp.output[..., 0]=zero' --summary ./infer model.pt
  graphpatch run --probe layers_0.mlp.output --save kept.safetensors ./infer model.pt
  graphpatch run --graph --save --record output -- ./infer model.pt
                                          into infer.1234.graph.json and infer.1234.safetensors";

/// Run PROGRAM, record its models' NodePath graph, patch values on the way
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Run {
    /// Print the NodePath tree on stderr when PROGRAM ends
    #[arg(long, help_heading = "What to see")]
    tree: bool,
    /// Save the recorded graph as JSON; without FILE, as PROGRAM.NUMBER.graph.json (then put -- before PROGRAM)
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "What to see")]
    graph: Option<Option<PathBuf>>,
    #[command(flatten)]
    asked: PatchArguments,
    /// Where the values of probes and records go (safetensors); without FILE, PROGRAM.NUMBER.safetensors
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "What to see")]
    save: Option<Option<PathBuf>>,
    /// When each scope and operation ran, on which thread, and where patches acted: a trace for ui.perfetto.dev or Chrome (JSON)
    #[arg(long, value_name = "FILE", help_heading = "What to see")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
    /// Print a table of the patches: matched, applied, failed, kept
    #[arg(long, help_heading = "What to see")]
    summary: bool,
    /// Check all patches against a saved graph before PROGRAM starts
    #[arg(long, value_name = "FILE", help_heading = "How")]
    against: Option<PathBuf>,
    /// Let `graphpatch live` look at PROGRAM, and patch it, while it runs
    #[arg(long, help_heading = "How")]
    live: bool,
    /// The program and its arguments; -- may stand in front
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> Result<u8, Stop> {
        if is_disabled() {
            return self.run_alone();
        }
        let mut patches = self.asked.specs()?;
        let graph = self.named(&self.graph, "graph.json");
        let save = self.named(&self.save, "safetensors");
        check_save(&patches, save.as_deref())?;
        self.options.listing.check()?;
        self.check_files(&patches, graph.as_deref(), save.as_deref())?;
        if let Some(file) = &self.against {
            patches = check::against(&GraphFile::load(file)?.graphs, patches)?;
        }
        check_patterns(&patches)?;
        start::check_program(&self.command)?;
        if self.live {
            sockets::folder()?;
        }
        let dir = start::directory()?;
        let record = self.tree || graph.is_some() || self.trace.is_some();
        let options = Options {
            live: self.live,
            trace: self.trace.is_some(),
            ..self.options.listing.options(
                record,
                &patches,
                dir.path(),
                self.options.on_error(OnError::Skip),
            )?
        };
        let library = start::library(dir.path())?;
        let mut command = start::command(&self.command, &options, &library)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let status =
            launch(&mut command).map_err(|why| Stop::usage(format!("{program}: {why}")))?;

        let wanted = Wanted {
            tree: self.tree,
            summary: self.summary,
            graph,
            save,
            trace: self.trace,
            patches,
            program,
            run_at: self.options.listing.run_at,
        };
        let outcome = Outcome::read(dir.path());
        outcome.tell(&wanted, start::exit_code(status))
    }
}

impl Run {
    /// Becomes the program by `exec`, without preloading anything, as the environment has switched graphpatch off.
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

    /// The file of an option. If the option names none, the name is made of the program's name, this process's id and `ending`.
    fn named(&self, given: &Option<Option<PathBuf>>, ending: &str) -> Option<PathBuf> {
        given.as_ref().map(|file| match file {
            Some(file) => file.clone(),
            None => {
                let program = self.command.first().map(Path::new);
                let name = program.and_then(Path::file_name).unwrap_or_default();
                let name = name.to_string_lossy();
                PathBuf::from(format!("{name}.{}.{ending}", std::process::id()))
            }
        })
    }

    fn check_files(
        &self,
        patches: &[PatchSpec],
        graph: Option<&Path>,
        save: Option<&Path>,
    ) -> Result<(), Stop> {
        let graph = graph.iter().map(|file| Output {
            option: "--graph",
            file,
            content: Content::Graph,
        });
        let values = save.iter().map(|file| Output {
            option: "--save",
            file,
            content: Content::Values,
        });
        let trace = self.trace.iter().map(|file| Output {
            option: "--trace",
            file,
            content: Content::Trace,
        });
        let outputs: Vec<Output<'_>> = graph.chain(values).chain(trace).collect();
        let mut inputs: Vec<Input> = outputs::inputs_of(&self.command).collect();
        inputs.extend(self.asked.inputs(patches));
        let against = self.against.iter();
        inputs.extend(against.map(|file| Input::new("--against", file)));
        outputs::check(&outputs, &inputs)
    }
}

/// Refuses texts that are not patterns. Also refuses probes and records at patterns without a saved graph that tells the
/// nodes, since each probe or record keeps values of one node.
fn check_patterns(patches: &[PatchSpec]) -> Result<(), Stop> {
    let open = |patch: &&PatchSpec| patch.path.names_are_pattern();
    for patch in patches.iter().filter(open) {
        let _: Pattern = patch.path.to_string().parse()?;
    }
    match patches
        .iter()
        .find(|patch| open(patch) && patch.kind.keeps())
    {
        None => Ok(()),
        Some(patch) => Err(Stop::usage(format!(
            "{patch}: a value is kept under the name of its node, and a pattern has several; say which there are: save a \
             graph with `graphpatch run --graph FILE` and give --against FILE"
        ))),
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
