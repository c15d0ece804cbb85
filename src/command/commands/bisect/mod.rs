//! `graphpatch bisect`: the first value in which two programs part that should compute the same.
//!
//! The first program is run twice: to record its graph, and with probes at its values; the second one once, with the same probes. If
//! values differ, both are run once more for the parameters, which have no values of their own in code of `torch.compile`. `found.rs` says what the values have shown.

mod found;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_core::graph::{self, Graph};
use graphpatch_core::patch::{self, OnError, PatchSpec, RunRange};
use graphpatch_core::path::{NodePath, Pattern, Slice};

use crate::commands::diff::values::{Dtypes, ValueReport, compare, graph_of};
use crate::commands::show::json;
use crate::launch::batch::Interrupts;
use crate::launch::once::{Done, Program};
use crate::launch::start;
use crate::run_options::Listing;
use crate::terminal::Color;
use crate::voice::{Stop, print, say};
use found::{Found, Values};

const EXAMPLES: &str = "\
Examples:
  graphpatch bisect -- ./infer old.pt --against -- ./infer new.pt        two files of one model
  graphpatch bisect -- ./before x.pt --against -- ./after x.pt           two builds of a program
  graphpatch bisect -- python eager.py --against -- python compiled.py   a model and its compiled form
  graphpatch bisect --nodes 'layers_*.output' -- ./infer --against -- env OMP_NUM_THREADS=1 ./infer
Both programs must compute the same on every run: random numbers need a seed.
Exit codes: 0 where all values agree, 1 where some do not, 2 for an error.";

/// What separates the two programs.
const AGAINST: [&str; 2] = ["--against", "--"];

/// Run two programs that should compute the same, and find the first value in which they part
#[derive(Args)]
#[command(
    after_long_help = EXAMPLES,
    override_usage = "graphpatch bisect [OPTIONS] -- PROGRAM [ARGS]... --against -- OTHER [ARGS]..."
)]
pub struct Bisect {
    /// Which values are compared: a path with * (within a name), ** (any names), ?, [0-5], {a,b}; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    nodes: Vec<Pattern>,
    /// Elements are equal if their distance is not more than this, absolutely or relative to the larger one
    #[arg(long, default_value_t = 1e-4, value_name = "T")]
    tolerance: f64,
    /// As JSON, with all values that differ; an infinite distance, as from NaN to a number, is the text "inf" there
    #[arg(long)]
    json: bool,
    /// When to color
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    options: Listing,
    /// Both programs with their arguments, `--against --` between them
    #[arg(last = true, required = true, value_name = "PROGRAMS")]
    command: Vec<OsString>,
}

/// A program that is run, and what it is called.
struct Side<'a> {
    name: &'static str,
    program: Program<'a>,
}

impl Bisect {
    pub fn run(self) -> Result<u8, Stop> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Stop::usage("--tolerance: expected a number of at least 0"));
        }
        let (one, other) = self.programs()?;
        start::check_program(one)?;
        start::check_program(other)?;
        self.options.check()?;
        let interrupts = Interrupts::catch();
        let dir = start::directory()?;
        let library = start::library(dir.path())?;
        let sides = [("the first program", one), ("the second program", other)]
            .map(|(name, argv)| self.side(name, argv, &library, dir.path()));
        match self.compare(&sides)? {
            Some(found) => {
                print(&match self.json {
                    true => json(&found)?,
                    false => found.text(self.tolerance, self.color.is_on()),
                })?;
                Ok(found.first.is_some().into())
            }
            None => {
                say("interrupted: nothing was compared yet");
                let signal = interrupts.came().unwrap_or(0);
                Ok(u8::try_from(128 + signal).unwrap_or(1))
            }
        }
    }

    fn programs(&self) -> Result<(&[OsString], &[OsString]), Stop> {
        let between = self.command.windows(2).position(|two| two == AGAINST);
        let Some(at) = between else {
            return Err(Stop::usage(
                "there is no second program: write -- PROGRAM [ARGS]... --against -- OTHER [ARGS]...",
            ));
        };
        Ok((&self.command[..at], &self.command[at + AGAINST.len()..]))
    }

    fn side<'a>(
        &'a self,
        name: &'static str,
        argv: &'a [OsString],
        library: &Path,
        dir: &'a Path,
    ) -> Side<'a> {
        Side {
            name,
            program: Program {
                argv,
                options: &self.options,
                on_error: OnError::Raise,
                library: PathBuf::from(library),
                dir,
                threads: None,
                limit: None,
                compiled_values: true,
                forks: None,
            },
        }
    }

    /// Runs both sides. `None` if a signal came.
    fn compare(&self, [one, other]: &[Side<'_>; 2]) -> Result<Option<Found>, Stop> {
        let Some(recorded) = one.run(true, &[])? else {
            return Ok(None);
        };
        let graphs = recorded.graphs();
        if graphs.iter().all(|graph| graph.root.children.is_empty()) {
            return Err(one.without_values("no libtorch model ran in it", &recorded));
        }
        let nodes = graph::matching(&graphs, &self.nodes)
            .map_err(|why| Stop::usage(format!("--nodes {why}")))?;
        // A probe keeps one value, so that each root gets one of its own.
        let nodes = graph::in_each_root(&graphs, nodes);
        let (parameters, computed): (Vec<NodePath>, Vec<NodePath>) = nodes
            .into_iter()
            .partition(|path| is_parameter(path, &graphs));
        let mut told = BTreeSet::new();
        let Some(mut kept) = values_of([one, other], &computed, &mut told)? else {
            return Ok(None);
        };
        let parted = |kept: &[Values; 2]| {
            let reports = compare(&kept[0], &kept[1], self.tolerance, Dtypes::Compare);
            reports.iter().any(ValueReport::is_of_both)
        };
        if computed.is_empty() || parted(&kept) {
            let Some(more) = values_of([one, other], &parameters, &mut told)? else {
                return Ok(None);
            };
            for (side, more) in kept.iter_mut().zip(more) {
                side.extend(more);
            }
        }
        let found = Found::of(&kept, &graphs, self.tolerance);
        if found.agree + found.differences.len() + found.unlike.len() == 0 {
            return Err(Stop::usage(
                "the two programs have no value in common: do both run this model?",
            ));
        }
        Ok(Some(found))
    }
}

/// What both programs keep at these nodes. `None` if a signal came. What there is to be told is told once.
fn values_of(
    sides: [&Side<'_>; 2],
    nodes: &[NodePath],
    told: &mut BTreeSet<String>,
) -> Result<Option<[Values; 2]>, Stop> {
    let mut both = [Values::new(), Values::new()];
    if nodes.is_empty() {
        return Ok(Some(both));
    }
    let probes: Vec<PatchSpec> = nodes.iter().map(probe).collect();
    for (side, values) in sides.into_iter().zip(&mut both) {
        let Some(done) = side.run(false, &probes)? else {
            return Ok(None);
        };
        let (found, lost) = done.values();
        if found.is_empty() {
            return Err(side.without_values("none of the values was computed in it", &done));
        }
        let failure = done.failure().into_iter();
        let notes = done.notes().into_iter().map(str::to_owned);
        for text in notes.chain(lost).chain(failure) {
            let text = format!("{}: {text}", side.name);
            if told.insert(text.clone()) {
                say(text);
            }
        }
        *values = found;
    }
    Ok(Some(both))
}

impl Side<'_> {
    fn run(&self, record: bool, probes: &[PatchSpec]) -> Result<Option<Done>, Stop> {
        self.program.run(record, probes)
    }

    /// The end of the command where a run has given nothing to compare.
    fn without_values(&self, why: &str, done: &Done) -> Stop {
        let mut text = format!("{}: {why}", self.name);
        for more in done
            .failure()
            .iter()
            .map(String::as_str)
            .chain(done.notes())
        {
            let _ = write!(text, "; {more}");
        }
        Stop::usage(text)
    }
}

fn probe(path: &NodePath) -> PatchSpec {
    PatchSpec {
        path: path.clone(),
        slice: Slice::whole(),
        kind: patch::Kind::Probe,
        runs: RunRange::default(),
    }
}

fn is_parameter(path: &NodePath, graphs: &[Graph]) -> bool {
    graph_of(graphs, path).is_some_and(|(_, graph)| graph.is_parameter(&path.without_root()))
}
