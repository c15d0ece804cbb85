//! `graphpatch sweep`: runs the program once for each of many nodes, patched there, and measures what that changes.
//!
//! `nodes.rs` finds the nodes, `each.rs` the patch at each of them; `once.rs` is one run, `pool.rs` all of them; `metric.rs`
//! measures, `journal.rs` keeps what was measured, `table.rs` is the result, `heat.rs` and `svg.rs` draw it.

mod each;
pub mod heat;
mod journal;
mod metric;
mod nodes;
mod once;
mod pool;
mod svg;
pub mod table;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::launch::batch::Interrupts;
use clap::Args;
use graphpatch_core::error::Error;
use graphpatch_core::graph::file::replace;
use graphpatch_core::graph::{Graph, GraphFile};
use graphpatch_core::patch::{PatchSpec, RunRange};
use graphpatch_core::path::NodePath;

use crate::commands::check;
use crate::launch::outputs::{self, Content, Input, Output};
use crate::launch::start;
use crate::patch_arguments::values_of;
use crate::run_options::RunOptions;
use crate::terminal::Color;
use crate::voice::{Stop, print, say};
use each::Each;
use journal::Journal;
use metric::{Bare, Metric};
use nodes::Pattern;
use once::Program;
use table::{Format, Row, Settings, Table};

/// Some nodes could not be measured.
const FAILED: u8 = 3;
/// The table where -o names none.
const TABLE: &str = "sweep.csv";
/// So many of them are told; the table has all.
const TOLD: usize = 5;

/// Run PROGRAM once for each node of a pattern, patched there, and measure what that changes
#[derive(Args)]
pub struct Sweep {
    /// The nodes: a path with * (within a name), ** (any names), ?, [0-5], {a,b}; may be repeated
    #[arg(long, value_name = "PATTERN", required = true)]
    nodes: Vec<Pattern>,
    /// What is done at each: zero | add:VALUE | replace:VALUE; in the key of a safetensors file {} stands for the node's path
    #[arg(long, value_name = "PATCH", default_value = "zero")]
    patch: String,
    /// To which part of the value, as in Python: '[..., 0]'
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
    /// The table: FILE.csv or FILE.json; may be repeated; by default sweep.csv, which must not be there yet. Beside the first one
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
    /// The nodes are those of a saved graph; without it the bare run is recorded
    #[arg(long, value_name = "GRAPH")]
    against: Option<PathBuf>,
    /// Forget what an interrupted sweep has measured
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    manner: RunOptions,
    /// When to color the heat map
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| "expected a positive number of seconds".to_owned())
}

impl Sweep {
    pub fn run(mut self) -> Result<u8, Stop> {
        if self.output.is_empty() {
            self.output.push(unnamed()?);
        }
        let each = Each::new(&self.patch, &self.slice, self.runs)?;
        let always = self.always()?;
        self.check(&each)?;
        let saved = self.against.as_deref().map(GraphFile::load).transpose()?;
        let interrupts = Interrupts::catch();
        let dir = start::directory()?;
        let program = Program {
            argv: &self.command,
            manner: &self.manner,
            library: start::library(dir.path())?,
            dir: dir.path(),
            threads: self.threads(),
            limit: self.timeout,
        };
        if let Some(saved) = &saved {
            self.check_paths(&saved.graphs)?;
        }

        let bar = pool::bare();
        let keepers: Vec<PatchSpec> = self.metric.iter().filter_map(Metric::keeper).collect();
        let of_bare: Vec<PatchSpec> = always.iter().chain(&keepers).cloned().collect();
        let done = program.run(saved.is_none(), &of_bare)?;
        bar.finish_and_clear();
        let Some(done) = done else {
            return interrupted(&interrupts, "nothing was measured yet");
        };
        let graphs = saved.map_or_else(|| done.graphs(), |saved| saved.graphs);
        if let Some(why) = done.fault(&of_bare) {
            // A path that was mistyped explains more than that it never matched.
            self.check_paths(&graphs)?;
            return Err(Stop::usage(format!("the bare run: {why}")));
        }
        let bare = self.bare(&done)?;
        drop(done);

        let nodes = nodes::matching(&graphs, &self.nodes)?;
        let patches = each.at_all(&nodes)?;
        let (mut journal, known) = Journal::open(self.journal(), &self.settings(), self.restart)?;
        let mut rows: HashMap<NodePath, Row> = known
            .into_iter()
            .filter(|row| row.why.is_none())
            .map(|row| (row.node.clone(), row))
            .collect();
        let left: Vec<&PatchSpec> = patches
            .iter()
            .filter(|patch| !rows.contains_key(&patch.path))
            .collect();
        if left.len() < nodes.len() {
            say(format!(
                "{} of {} nodes were measured before",
                nodes.len() - left.len(),
                nodes.len()
            ));
        }

        let measure = |patch: &PatchSpec| -> Result<Option<Row>, Stop> {
            let mut patches = always.clone();
            patches.push(patch.clone());
            patches.extend(keepers.iter().cloned());
            let Some(done) = program.run(false, &patches)? else {
                return Ok(None);
            };
            let values = match done.fault(&patches) {
                Some(why) => Err(why),
                None => self
                    .metric
                    .iter()
                    .zip(&bare)
                    .map(|(metric, bare)| metric.of(&done, bare).map(Into::into))
                    .collect(),
            };
            let (values, why) = match values {
                Ok(values) => (values, None),
                Err(why) => (Vec::new(), Some(why)),
            };
            Ok(Some(Row {
                node: patch.path.clone(),
                why,
                values,
                seconds: done.seconds,
            }))
        };
        pool::run(&left, self.jobs(), measure, |row| {
            journal.add(&row)?;
            rows.insert(row.node.clone(), row);
            Ok(())
        })?;
        if interrupts.came().is_some() {
            let so_far = format!(
                "{} of {} nodes are measured; the same command goes on with the others",
                rows.len(),
                nodes.len()
            );
            return interrupted(&interrupts, &so_far);
        }

        let columns = self
            .metric
            .iter()
            .zip(&bare)
            .map(|(metric, bare)| metric.column(bare));
        let rows = nodes.iter().filter_map(|node| rows.remove(node)).collect();
        let table = Table::new(self.settings(), columns.collect(), rows);
        self.save(&table)?;
        journal.remove();
        self.tell(&table)
    }

    fn check(&self, each: &Each) -> Result<(), Stop> {
        for file in &self.output {
            if Format::of(file).is_none() {
                return Err(Stop::usage(format!(
                    "-o {}: a table ends in .csv or .json",
                    file.display()
                )));
            }
        }
        for (i, metric) in self.metric.iter().enumerate() {
            if self.metric[..i]
                .iter()
                .any(|before| before.name == metric.name)
            {
                return Err(Stop::usage(format!(
                    "--metric {}: there are two of that name",
                    metric.name
                )));
            }
        }
        let mut kept: Vec<PatchSpec> = Vec::new();
        for keeper in self.metric.iter().filter_map(Metric::keeper) {
            if kept.contains(&keeper) {
                return Err(Stop::usage(format!(
                    "--metric: {} is measured twice",
                    keeper.path
                )));
            }
            kept.push(keeper);
        }
        self.check_files(each)?;
        self.manner.check()?;
        start::check_program(&self.command)
    }

    fn check_files(&self, each: &Each) -> Result<(), Stop> {
        let tables = self.output.iter().map(|file| Output {
            option: "-o",
            file,
            content: Content::Table,
        });
        let pictures = self.heat_map.iter().map(|file| Output {
            option: "--heat-map",
            file,
            content: Content::Picture,
        });
        let outputs: Vec<Output<'_>> = tables.chain(pictures).collect();
        let mut inputs: Vec<Input> = outputs::inputs_of(&self.command).collect();
        inputs.extend(each.input());
        inputs.extend(values_of(&self.always()?));
        let against = self.against.iter();
        inputs.extend(against.map(|file| Input::new("--against", file)));
        outputs::check(&outputs, &inputs)
    }

    fn always(&self) -> Result<Vec<PatchSpec>, Stop> {
        let mut specs = Vec::new();
        for text in &self.always {
            let spec: PatchSpec = text.parse()?;
            if spec.kind.keeps() {
                return Err(Stop::usage(format!("--always {spec}: it changes nothing")));
            }
            each::check_value(&spec)?;
            specs.push(spec);
        }
        Ok(specs)
    }

    /// The paths that are given in full.
    fn check_paths(&self, graphs: &[Graph]) -> Result<(), Stop> {
        let keepers = self.metric.iter().filter_map(Metric::keeper);
        let specs: Vec<PatchSpec> = self.always()?.into_iter().chain(keepers).collect();
        Ok(check::against(graphs, &specs)?)
    }

    fn jobs(&self) -> usize {
        self.jobs.map_or_else(cores, usize::from)
    }

    /// What each of several programs at a time has of the cores.
    fn threads(&self) -> Option<usize> {
        let alone = self.jobs() == 1 || std::env::var_os("OMP_NUM_THREADS").is_some();
        (!alone).then(|| (cores() / self.jobs()).max(1))
    }

    fn journal(&self) -> PathBuf {
        Journal::beside(&self.output[0])
    }

    fn settings(&self) -> Settings {
        Settings {
            command: self
                .command
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect(),
            directory: std::env::current_dir()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            patch: self.patch.clone(),
            slice: self.slice.clone(),
            runs: self
                .runs
                .as_ref()
                .map(RunRange::to_string)
                .unwrap_or_default(),
            always: self.always.clone(),
            manner: self.manner.to_string(),
            metrics: self
                .metric
                .iter()
                .map(|metric| metric.name.clone())
                .collect(),
        }
    }

    fn bare(&self, done: &once::Done) -> Result<Vec<Bare>, Stop> {
        let read = |metric: &Metric| {
            metric.of_bare(done).map_err(|why| {
                let name = &metric.name;
                Stop::usage(format!("--metric {name}: the bare run: {why}"))
            })
        };
        self.metric.iter().map(read).collect()
    }

    fn save(&self, table: &Table) -> Result<(), Stop> {
        for file in &self.output {
            table.save(file).map_err(|why| not_saved(&why))?;
        }
        if let Some(file) = &self.heat_map {
            replace(file, svg::picture(table).as_bytes()).map_err(|why| {
                not_saved(&Error::File {
                    file: file.clone(),
                    why: format!("cannot be written: {why}"),
                })
            })?;
        }
        Ok(())
    }

    /// The heat map on stdout, what failed on stderr.
    fn tell(&self, table: &Table) -> Result<u8, Stop> {
        print(&heat::text(table, self.color.is_on()))?;
        let failed: Vec<(&NodePath, &String)> = table
            .rows
            .iter()
            .filter_map(|row| Some((&row.node, row.why.as_ref()?)))
            .collect();
        for (node, why) in failed.iter().take(TOLD) {
            say(format!("{node}: {why}"));
        }
        if failed.len() > TOLD {
            let more = failed.len() - TOLD;
            say(format!(
                "{more} more could not be measured; {} says why",
                self.output[0].display()
            ));
        }
        Ok(if failed.is_empty() { 0 } else { FAILED })
    }
}

/// Where the table goes whose name was not given: never over another one.
fn unnamed() -> Result<PathBuf, Stop> {
    let table = PathBuf::from(TABLE);
    match table.symlink_metadata() {
        Err(_) => Ok(table),
        Ok(_) => Err(Stop::usage(format!(
            "{TABLE} is there already, and no -o names another table: give -o FILE (-o {TABLE} replaces it)"
        ))),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn interrupted(interrupts: &Interrupts, so_far: &str) -> Result<u8, Stop> {
    let signal = interrupts.came().unwrap_or(0);
    say(format!("interrupted: {so_far}"));
    Ok(u8::try_from(128 + signal).unwrap_or(1))
}

/// All was measured, and the journal has it.
fn not_saved(why: &Error) -> Stop {
    Stop {
        message: format!(
            "{why}; the same command, once that is mended, writes it without measuring again"
        ),
        code: 1,
    }
}
