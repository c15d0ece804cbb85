//! The checks of a sweep's arguments before anything runs.

use graphpatch_core::graph::Graph;
use graphpatch_core::patch::PatchSpec;

use super::Sweep;
use super::each::{self, Each, Experiment};
use super::metric::Metric;
use super::table::Format;
use crate::commands::check;
use crate::launch::outputs::{self, Content, Input, Output};
use crate::launch::start;
use crate::patch_arguments::values_of;
use crate::voice::Stop;

impl Sweep {
    pub(super) fn check(&self, each: &Each) -> Result<(), Stop> {
        for file in &self.output {
            if Format::of(file).is_none() {
                return Err(Stop::usage(format!(
                    "-o {}: a table ends in .csv, .json or .parquet",
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
        self.options.listing.check()?;
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
        let journal = self.journal();
        let journal = Output {
            option: "the journal of -o",
            file: &journal,
            content: Content::Journal,
        };
        let outputs: Vec<Output<'_>> = tables.chain([journal]).chain(pictures).collect();
        let mut inputs: Vec<Input> = outputs::inputs_of(&self.command).collect();
        inputs.extend(each.input());
        inputs.extend(values_of(&self.always()?));
        let against = self.against.iter();
        inputs.extend(against.map(|file| Input::new("--against", file)));
        outputs::check(&outputs, &inputs)
    }

    /// The patches that hold in every run.
    pub(super) fn always(&self) -> Result<Vec<PatchSpec>, Stop> {
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

    /// Checks the paths that are given in full, without a pattern.
    pub(super) fn check_paths(&self, graphs: &[Graph]) -> Result<(), Stop> {
        let keepers = self.metric.iter().filter_map(Metric::keeper);
        let specs: Vec<PatchSpec> = self.always()?.into_iter().chain(keepers).collect();
        check::against(graphs, specs)?;
        Ok(())
    }

    /// Refuses a patch that fits at none of its nodes, by what the graph knows of their shapes: every run of the program would be in
    /// vain. Where it fits at some, the others are rows that say why.
    pub(super) fn check_fit(
        &self,
        graphs: &[Graph],
        experiments: &[Experiment],
    ) -> Result<(), Stop> {
        let mut first = None;
        for experiment in experiments {
            match check::against(graphs, vec![experiment.patch.clone()]) {
                Ok(_) => return Ok(()),
                Err(why) => first = first.or(Some(why)),
            }
        }
        first.map_or(Ok(()), |why| {
            Err(Stop::usage(format!(
                "--patch {}: it fits at no node: {why}",
                self.patch
            )))
        })
    }
}
