//! `graphpatch sweep`: runs the program once for each of many nodes, patched there, and measures what that changes.
//!
//! `checks.rs` refuses bad arguments. `nodes.rs` finds the nodes, and `each.rs` makes the patch at each of them, in each place
//! of the slice's axis (`axis.rs`). `measure.rs` measures one run by the metrics of `metric.rs`, and `pool.rs` makes all runs.
//! `journal.rs` keeps what was measured so far, `table.rs` is the result, `heat.rs` and `svg.rs` draw it, and `results.rs`
//! saves it.

mod axis;
mod checks;
mod each;
pub mod heat;
mod journal;
mod measure;
mod metric;
mod nodes;
mod pool;
mod results;
mod svg;
pub mod table;
mod unnamed;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::launch::batch::Interrupts;
use crate::launch::once::Program;
use clap::Args;
use graphpatch_core::graph::{Graph, GraphFile};
use graphpatch_core::patch::{OnError, RunRange};
use graphpatch_core::path::Pattern;

use crate::launch::start;
use crate::run_options::RunOptions;
use crate::terminal::Color;
use crate::voice::{Stop, say};
use each::{Each, Experiment};
use journal::Journal;
use measure::{BareRun, Measurements};
use metric::Metric;
use table::{Key, Row, Table};

/// Run PROGRAM once for each node of a pattern, patched there, and measure what that changes
#[derive(Args)]
pub struct Sweep {
    /// The nodes: a path with * (within a name), ** (any names), ?, [0-5], {a,b}; may be repeated
    #[arg(long, value_name = "PATTERN", required = true)]
    nodes: Vec<Pattern>,
    /// What is done at each: zero | add:VALUE | replace:VALUE; in the key of a safetensors file {} stands for the node's path
    #[arg(long, value_name = "PATCH", default_value = "zero")]
    patch: String,
    /// To which part of the value, as in Python: '[..., 0]'; '[:, {0..11}]' sweeps over [:, 0] to [:, 11] as well, and so does
    /// a list: '[:, {0,4,1:3}]'. A value whose key has {} is then sliced like the node's
    #[arg(
        long,
        value_name = "SLICE",
        default_value = "",
        allow_hyphen_values = true
    )]
    slice: String,
    /// In which runs of the model, counted from 0: 2, 0..4, 2..
    #[arg(long, value_name = "RUNS")]
    runs: Option<RunRange>,
    /// A patch that holds in every run of the program, the bare one included; may be repeated
    #[arg(long, value_name = "PATCH")]
    always: Vec<String>,
    /// What is measured: regex:PATTERN, a number in the program's output (the last match's first group, or all of it);
    /// distance:PATH, the norm of the difference to the bare run in that node's last value; mean-distance:PATH, the mean
    /// of these norms over all its values; NAME= in front names it; may be repeated
    #[arg(long, value_name = "METRIC", required = true)]
    metric: Vec<Metric>,
    /// The table: FILE.csv, FILE.json or FILE.parquet; may be repeated; by default sweep.csv, which must not be there yet. Beside the first one
    /// a journal keeps what is measured, so that the same command goes on after an interruption
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,
    /// The heat map as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    heat_map: Option<PathBuf>,
    /// Programs at a time; by default as many as there are cores. OMP_NUM_THREADS, where it is not set, becomes what is left
    /// for each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How long one run of the program may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Start the program once, and fork it where its first model is about to run: once for each run of the sweep. What it does
    /// before, such as loading the model, is done once. For C++ and TorchScript programs on the CPU that have one thread there
    #[arg(long)]
    fork: bool,
    /// The nodes are those of a saved graph; without it the bare run is recorded
    #[arg(long, value_name = "GRAPH")]
    against: Option<PathBuf>,
    /// Forget what an interrupted sweep has measured
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    options: RunOptions,
    /// When to color the heat map
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Sweep {
    pub fn run(mut self) -> Result<u8, Stop> {
        if self.output.is_empty() {
            self.output.push(unnamed::file()?);
        }
        let each = Each::new(&self.patch, &self.slice, self.runs)?;
        let always = self.always()?;
        self.check(&each)?;
        let saved = self.against.as_deref().map(GraphFile::load).transpose()?;
        let interrupts = Interrupts::catch();
        let dir = start::directory()?;
        let mut program = self.program(dir.path())?;
        if let Some(saved) = &saved {
            self.check_paths(&saved.graphs)?;
        }

        if self.fork {
            program.start_once()?;
        }
        let measurements = Measurements::new(&program, &self.metric, always);
        let bar = pool::bare();
        let bare_run = measurements.run_bare(saved.is_none())?;
        bar.finish_and_clear();
        let Some(bare_run) = bare_run else {
            return interrupted(&interrupts, "nothing was measured yet");
        };
        let graphs = saved.map_or_else(|| bare_run.graphs(), |saved| saved.graphs);
        self.accept(&bare_run, &graphs)?;
        let bare = measurements.of_bare(&bare_run)?;
        drop(bare_run);

        let nodes = nodes::matching(&graphs, &self.nodes)?;
        let measured = self.metric.iter().filter_map(Metric::path);
        let of_metrics = nodes::shared_note(&graphs, measured);
        let notes = [
            nodes::shared_note(&graphs, nodes.iter()),
            of_metrics.map(|note| format!("--metric: {note}")),
        ];
        notes.into_iter().flatten().for_each(say);
        let experiments = each.at_all(&nodes, dir.path())?;
        self.check_fit(&graphs, &experiments)?;
        let (mut journal, mut rows) = self.measured_before()?;
        let left = left(&experiments, &rows);
        let measure = |experiment: &Experiment| measurements.at(experiment, &bare);
        pool::run(&left, self.jobs(), measure, |row| {
            journal.add(&row)?;
            rows.insert(row.key(), row);
            Ok(())
        })?;
        if interrupts.came().is_some() {
            let so_far = format!(
                "{} of {} {} are measured; the same command goes on with the others",
                rows.len(),
                experiments.len(),
                what(&experiments)
            );
            return interrupted(&interrupts, &so_far);
        }

        let rows = experiments
            .iter()
            .filter_map(|experiment| rows.remove(&experiment.key()))
            .collect();
        let table = Table::new(self.settings(), measurements.columns(&bare), rows);
        self.save(&table)?;
        journal.remove();
        self.tell(&table)
    }

    /// Refuses a bare run that failed: there is nothing to compare experiments with.
    fn accept(&self, bare_run: &BareRun, graphs: &[Graph]) -> Result<(), Stop> {
        let Some(why) = &bare_run.fault else {
            return Ok(());
        };
        // If a path was mistyped, a message about the path is more useful than one about a patch that never matched. Of a
        // program that failed, the graph may lack what would have come.
        if bare_run.ended_well() {
            self.check_paths(graphs)?;
        }
        let said = bare_run.last_lines();
        Err(Stop::usage(format!("the bare run: {why}{said}")))
    }

    fn program<'a>(&'a self, dir: &'a Path) -> Result<Program<'a>, Stop> {
        Ok(Program {
            argv: &self.command,
            options: &self.options.listing,
            on_error: self.options.on_error(OnError::Raise),
            library: start::library(dir)?,
            dir,
            threads: self.threads(),
            limit: self.timeout,
            compiled_values: false,
            forks: None,
        })
    }

    /// Opens the journal, and returns it with the rows that an interrupted sweep has measured.
    fn measured_before(&self) -> Result<(Journal, HashMap<Key, Row>), Stop> {
        let (journal, known) = Journal::open(self.journal(), &self.settings(), self.restart)?;
        let good = known.into_iter().filter(|row| row.why.is_none());
        Ok((journal, good.map(|row| (row.key(), row)).collect()))
    }

    fn jobs(&self) -> usize {
        self.jobs.map_or_else(cores, usize::from)
    }

    /// How many threads each program gets when several run at a time; `None` if `OMP_NUM_THREADS` is to stay as it is.
    fn threads(&self) -> Option<usize> {
        let alone = self.jobs() == 1 || std::env::var_os("OMP_NUM_THREADS").is_some();
        (!alone).then(|| (cores() / self.jobs()).max(1))
    }

    fn journal(&self) -> PathBuf {
        Journal::beside(&self.output[0])
    }
}

/// The experiments that are still to be measured.
fn left<'a>(experiments: &'a [Experiment], rows: &HashMap<Key, Row>) -> Vec<&'a Experiment> {
    let is_left = |experiment: &&Experiment| !rows.contains_key(&experiment.key());
    let left: Vec<&Experiment> = experiments.iter().filter(is_left).collect();
    if left.len() < experiments.len() {
        say(format!(
            "{} of {} {} were measured before",
            experiments.len() - left.len(),
            experiments.len(),
            what(experiments)
        ));
    }
    left
}

/// What is counted in messages.
fn what(experiments: &[Experiment]) -> &'static str {
    let places = experiments.iter().any(|each| each.place.is_some());
    if places { "places" } else { "nodes" }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| "expected a positive number of seconds".to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn interrupted(interrupts: &Interrupts, so_far: &str) -> Result<u8, Stop> {
    let signal = interrupts.came().unwrap_or(0);
    say(format!("interrupted: {so_far}"));
    Ok(u8::try_from(128 + signal).unwrap_or(1))
}
