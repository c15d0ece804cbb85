//! The end of a sweep: its table and picture are saved, and the results are printed.

use graphpatch_core::error::Error;
use graphpatch_core::file_error::not_written;
use graphpatch_core::output::replace;
use graphpatch_core::patch::RunRange;

use super::Sweep;
use super::table::{Settings, Table};
use super::{heat, svg};
use crate::voice::{Stop, print, say};

/// The exit code when some nodes could not be measured.
const FAILED: u8 = 3;
/// At most this many failed nodes are printed. The table has all of them.
const MOST_PRINTED: usize = 5;

impl Sweep {
    /// The settings of this sweep, which the table and the journal contain.
    pub(super) fn settings(&self) -> Settings {
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
            options: self.options.to_string(),
            metrics: self
                .metric
                .iter()
                .map(|metric| metric.name.clone())
                .collect(),
        }
    }

    pub(super) fn save(&self, table: &Table) -> Result<(), Stop> {
        for file in &self.output {
            table.save(file).map_err(|why| not_saved(&why))?;
        }
        if let Some(file) = &self.heat_map {
            replace(file, svg::picture(table).as_bytes())
                .map_err(|why| not_saved(&not_written(file, &why)))?;
        }
        Ok(())
    }

    /// Prints the heat map on stdout and the failures on stderr.
    pub(super) fn tell(&self, table: &Table) -> Result<u8, Stop> {
        print(&heat::text(table, self.color.is_on()))?;
        let failed: Vec<(String, &String)> = table
            .rows
            .iter()
            .filter_map(|row| Some((row.label(), row.why.as_ref()?)))
            .collect();
        for (node, why) in failed.iter().take(MOST_PRINTED) {
            say(format!("{node}: {why}"));
        }
        if failed.len() > MOST_PRINTED {
            let more = failed.len() - MOST_PRINTED;
            say(format!(
                "{more} more could not be measured; {} says why",
                self.output[0].display()
            ));
        }
        Ok(if failed.is_empty() { 0 } else { FAILED })
    }
}

/// The error when the results cannot be saved. Nothing is lost: the journal still has all measurements.
fn not_saved(why: &Error) -> Stop {
    Stop {
        message: format!(
            "{why}; the same command, once that is mended, writes it without measuring again"
        ),
        code: 1,
    }
}
