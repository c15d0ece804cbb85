//! The measurements of the bare run, and of a run with a patch at one node.

use graphpatch_core::graph::Graph;
use graphpatch_core::patch::PatchSpec;

use super::each::Experiment;
use super::metric::{Bare, Metric};
use super::table::{Column, Row};
use crate::launch::once::{Done, Program};
use crate::voice::Stop;

/// The measurements of a sweep.
pub struct Measurements<'a> {
    pub program: &'a Program<'a>,
    pub metrics: &'a [Metric],
    /// The patches of every run.
    always: Vec<PatchSpec>,
    /// The probes and records that keep the values which metrics need.
    keepers: Vec<PatchSpec>,
}

/// The bare run: the program without a patch at a node.
pub struct BareRun {
    /// Why its measurements cannot be used, if so.
    pub fault: Option<String>,
    done: Done,
}

impl BareRun {
    /// The graphs that it recorded; none if it did not record.
    pub fn graphs(&self) -> Vec<Graph> {
        self.done.graphs()
    }

    /// Whether the program ended with code 0.
    pub fn ended_well(&self) -> bool {
        self.done.ended_well()
    }

    /// The last lines that the program wrote, each in a line below a heading; empty if it wrote no more than one.
    pub fn last_lines(&self) -> String {
        self.done.last_lines()
    }
}

impl<'a> Measurements<'a> {
    pub fn new(
        program: &'a Program<'a>,
        metrics: &'a [Metric],
        always: Vec<PatchSpec>,
    ) -> Measurements<'a> {
        let keepers = metrics.iter().filter_map(Metric::keeper).collect();
        Measurements {
            program,
            metrics,
            always,
            keepers,
        }
    }

    /// Runs the program without a patch at a node. `None` if a signal asks the sweep to end.
    pub fn run_bare(&self, record: bool) -> Result<Option<BareRun>, Stop> {
        let patches: Vec<PatchSpec> = self.always.iter().chain(&self.keepers).cloned().collect();
        let done = self.program.run(record, &patches)?;
        Ok(done.map(|done| BareRun {
            fault: done.fault(&patches),
            done,
        }))
    }

    /// What each metric shows of the bare run.
    pub fn of_bare(&self, bare: &BareRun) -> Result<Vec<Bare>, Stop> {
        let read = |metric: &Metric| {
            metric.of_bare(&bare.done).map_err(|why| {
                let name = &metric.name;
                Stop::usage(format!("--metric {name}: the bare run: {why}"))
            })
        };
        self.metrics.iter().map(read).collect()
    }

    /// Runs the program with this experiment's patch as well, and measures. `None` if a signal asks the sweep to end.
    pub fn at(&self, experiment: &Experiment, bare: &[Bare]) -> Result<Option<Row>, Stop> {
        let mut patches = self.always.clone();
        patches.push(experiment.patch.clone());
        patches.extend(self.keepers.iter().cloned());
        let Some(done) = self.program.run(false, &patches)? else {
            return Ok(None);
        };
        let pairs = self.metrics.iter().zip(bare);
        let values = match done.fault(&patches) {
            Some(why) => Err(why),
            None => pairs
                .map(|(metric, bare)| metric.of(&done, bare).map(Into::into))
                .collect(),
        };
        let (values, why) = match values {
            Ok(values) => (values, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Ok(Some(Row {
            node: experiment.patch.path.clone(),
            place: experiment.place.clone(),
            why,
            values,
            seconds: done.seconds,
        }))
    }

    /// The columns of the table.
    pub fn columns(&self, bare: &[Bare]) -> Vec<Column> {
        let pairs = self.metrics.iter().zip(bare);
        pairs.map(|(metric, bare)| metric.column(bare)).collect()
    }
}
