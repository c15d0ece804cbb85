//! Many experiments in one run of the program. It gets the same two sentences once for each experiment, so the model runs
//! twice for each. Each patch holds only for the two runs of its own experiment.

use std::fmt::Write;
use std::path::Path;

use graphpatch_core::output::replace;
use graphpatch_core::path::NodePath;

use super::materials::Materials;
use crate::commands::sweep::table::{Column, Measure, Row, Settings, Table};
use crate::voice::Stop;

pub const PATCHES: &str = "patches.toml";
pub const TOKENS: &str = "pairs.txt";
pub const LAYERS: usize = 6;
pub const HEADS: usize = 12;
/// The parts of a layer that the page's heat map shows: its attention and its MLP.
const PARTS: [&str; 2] = ["attention.output_1.dense.output", "output_1.dense.output"];

/// A node and the slice that is zeroed there.
struct Case {
    path: String,
    slice: String,
}

pub struct Experiment {
    cases: Vec<Case>,
    pair: [&'static str; 2],
}

impl Experiment {
    /// All heads, layer by layer, then the parts of all layers.
    pub fn of(materials: &Materials) -> Experiment {
        let layer = |layer: usize| format!("bert.encoder.layer_{layer}");
        let heads = (0..LAYERS * HEADS).map(|i| Case {
            path: format!("{}.attention.self.softmax", layer(i / HEADS)),
            slice: format!("[:, {}]", i % HEADS),
        });
        let parts = PARTS.iter().flat_map(|part| {
            (0..LAYERS).map(move |i| Case {
                path: format!("{}.{part}", layer(i)),
                slice: String::new(),
            })
        });
        Experiment {
            cases: heads.chain(parts).collect(),
            pair: materials.pair_of_tokens(),
        }
    }

    /// Writes the patches, and the sentences once for each patch and once more. The first time nothing is patched.
    pub fn save(&self, folder: &Path) -> Result<(), Stop> {
        let mut patches = String::new();
        for (i, Case { path, slice }) in self.cases.iter().enumerate() {
            let (from, to) = (2 * i + 2, 2 * i + 4);
            let slice = match slice.is_empty() {
                true => String::new(),
                false => format!("slice = \"{slice}\"\n"),
            };
            let _ = writeln!(
                patches,
                "[[patch]]\npath = \"{path}\"\n{slice}kind = \"zero\"\nruns = \"{from}..{to}\"\n"
            );
        }
        let [first, second] = self.pair;
        let pairs = format!("{first}\n{second}\n").repeat(self.cases.len() + 1);
        for (name, text) in [(PATCHES, patches), (TOKENS, pairs)] {
            let file = folder.join(name);
            replace(&file, text.as_bytes()).map_err(|why| Stop::not_written(&file, &why))?;
        }
        Ok(())
    }

    /// Reads what the program printed: a line for each pair of sentences.
    pub fn read(&self, printed: &str) -> Result<Measured<'_>, Stop> {
        let number = |line: &str| line.split("similarity ").nth(1)?.parse().ok();
        let values: Vec<f64> = printed.lines().filter_map(number).collect();
        if values.len() != self.cases.len() + 1 {
            return Err(Stop::usage(format!(
                "./infer printed {} similarities, not {}",
                values.len(),
                self.cases.len() + 1
            )));
        }
        Ok(Measured {
            experiment: self,
            values,
        })
    }
}

/// The measured similarities: first the one without a patch, then that of each case.
pub struct Measured<'a> {
    experiment: &'a Experiment,
    values: Vec<f64>,
}

impl Measured<'_> {
    pub fn bare(&self) -> f64 {
        self.values[0]
    }

    /// The similarities of the heads, layer by layer.
    pub fn heads(&self) -> Vec<Vec<f64>> {
        let heads = &self.values[1..=LAYERS * HEADS];
        heads.chunks(HEADS).map(<[f64]>::to_vec).collect()
    }

    /// The parts of all layers, as `graphpatch sweep` would have saved them.
    pub fn table(&self) -> Table {
        let parts = self.experiment.cases.iter().zip(&self.values[1..]);
        let row = |(case, value): (&Case, &f64)| {
            Some(Row {
                place: None,
                node: case.path.parse::<NodePath>().ok()?,
                why: None,
                values: vec![(*value).into()],
                seconds: 0.0,
            })
        };
        let rows = parts.skip(LAYERS * HEADS).filter_map(row).collect();
        let settings = Settings {
            command: ["./infer", "encoder.pt", TOKENS].map(str::to_owned).into(),
            patch: "zero".into(),
            metrics: vec!["similarity".into()],
            ..Settings::default()
        };
        let similarity = Column {
            name: "similarity".into(),
            measure: Measure::Regex,
            bare: self.bare().into(),
        };
        Table::new(settings, vec![similarity], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::patch::toml;

    #[test]
    fn each_case_has_two_runs_of_its_own() {
        let dir = tempfile::tempdir().expect("dir");
        let experiment = Experiment::of(&Materials);
        experiment.save(dir.path()).expect("saved");
        let patches = toml::load(&dir.path().join(PATCHES)).expect("patches");
        assert_eq!(patches.len(), LAYERS * HEADS + 2 * LAYERS);
        assert_eq!(
            patches[13].to_string(),
            "bert.encoder.layer_1.attention.self.softmax[:, 1]=zero"
        );
        assert_eq!(patches[13].runs.to_string(), "28..30");
        let pairs = std::fs::read_to_string(dir.path().join(TOKENS)).expect("pairs");
        assert_eq!(pairs.lines().count(), 2 * (patches.len() + 1));
    }

    #[test]
    fn what_is_printed_is_read() {
        let experiment = Experiment::of(&Materials);
        let line = |i: usize| format!("sentences 1 and 2: similarity 0.{i:03}\n");
        let printed: String = (0..85).map(line).collect();
        let measured = experiment.read(&printed).expect("read");
        assert_eq!((measured.bare(), measured.heads()[1][0]), (0.0, 0.013));
        let table = measured.table();
        assert_eq!(table.rows.len(), 12);
        assert_eq!(
            table.rows[6].node.to_string(),
            "bert.encoder.layer_0.output_1.dense.output"
        );
        assert!((table.rows[6].values[0].0 - 0.079).abs() < 1e-9);
        assert!(experiment.read("similarity 0.1\n").is_err());
    }
}
