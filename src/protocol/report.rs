//! The report of one process: one JSON file per process image. It is replaced by a rename each time, so that a reader never
//! sees half a file, also when the writer is killed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph::Graph;
use graphpatch_core::nested;

use crate::seal;

/// The report of one process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// A launcher's rank (`RANK`).
    pub rank: Option<String>,
    /// The path of its executable.
    pub program: String,
    /// Version and place of its libtorch.
    pub libtorch: Option<String>,
    /// How many runs ended.
    pub runs: u64,
    /// Whether operations outside of runs were listed.
    #[serde(default)]
    pub flat: bool,
    /// The recorded graphs, one per root.
    pub graphs: Vec<Graph>,
    /// The patches, in the order given.
    pub patches: Vec<PatchReport>,
    /// What was lost or could not be seen.
    pub notes: Vec<String>,
    /// Values that were kept and are lost to the user, each with the reason.
    pub unsaved: Vec<String>,
    /// Whether this is a Python program whose calls of modules were not seen.
    #[serde(default)]
    pub unseen_python: bool,
    /// Whether the program has a session of its own, which used runs that the command did not see.
    #[serde(default)]
    pub own_session: bool,
    /// Why the session could not attach.
    pub error: Option<String>,
    /// The file of kept values beside this one, if there is one. It is not in the JSON file; the reader fills it in.
    #[serde(skip)]
    pub values: Option<PathBuf>,
}

/// What happened to one patch in one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchReport {
    /// The patch as text.
    pub text: String,
    /// How often its node was reached.
    pub matched: u64,
    /// How often the value was changed or kept.
    pub applied: u64,
    /// How often that failed.
    pub failed: u64,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// How many values a probe or record keeps, and how many came after its limit was reached.
    pub kept: u64,
    pub dropped: u64,
}

impl Report {
    /// Writes `dir/name` in one step.
    pub fn save(&self, dir: &Path, name: &str) -> Result<()> {
        let error = |why: String| Error::File {
            file: dir.join(name),
            why,
        };
        let text = serde_json::to_vec(self).map_err(|why| error(why.to_string()))?;
        let unfinished = dir.join(format!(".{name}.part"));
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(&unfinished, dir.join(name)))
            .map_err(|why| error(why.to_string()))
    }

    /// Every report in `dir`, by process id, and a line for each that cannot be read.
    pub fn load_all(dir: &Path) -> (Vec<Report>, Vec<String>) {
        let (mut reports, mut damaged) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("report-") || !name.ends_with(".json") {
                continue;
            }
            match std::fs::read(entry.path())
                .map_err(|why| why.to_string())
                .and_then(|text| parse(&text))
            {
                Ok(mut report) => {
                    let values = dir.join(values_name(&name));
                    report.values = values.exists().then_some(values);
                    let seal = dir.join(seal::seal_name(&name));
                    report.notes.extend(seal::notes(&seal, report.pid));
                    reports.push(report);
                }
                Err(why) => damaged.push(format!("the report {name} cannot be read: {why}")),
            }
        }
        reports.sort_by_key(|report| report.pid);
        (reports, damaged)
    }
}

/// The file of kept values that belongs to the report `name`.
pub fn values_name(name: &str) -> String {
    let middle = name.strip_prefix("report-").unwrap_or(name);
    format!(
        "values-{}.safetensors",
        middle.strip_suffix(".json").unwrap_or(middle)
    )
}

fn parse(text: &[u8]) -> std::result::Result<Report, String> {
    let report = nested::read(text, |mut json| Report::deserialize(&mut json));
    let report = report.ok_or("it nests more deeply than any graph")?;
    report.map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back() {
        let dir = tempfile::tempdir().expect("dir");
        for pid in [7, 3] {
            let patch = PatchReport {
                text: "a=zero".into(),
                matched: 2,
                ..PatchReport::default()
            };
            let report = Report {
                pid,
                runs: 5,
                patches: vec![patch],
                ..Report::default()
            };
            report
                .save(dir.path(), &format!("report-{pid}-0.json"))
                .expect("save");
        }
        std::fs::write(dir.path().join("report-9-0.json"), "{").expect("write");
        std::fs::write(dir.path().join("values-7-0.safetensors"), "").expect("write");
        std::fs::write(dir.path().join(".report-8-0.json.part"), "{").expect("write");
        std::fs::write(dir.path().join("options.json"), "{}").expect("write");
        let (reports, damaged) = Report::load_all(dir.path());
        assert_eq!(
            reports.iter().map(|report| report.pid).collect::<Vec<_>>(),
            [3, 7]
        );
        assert_eq!((reports[0].runs, reports[0].patches[0].matched), (5, 2));
        let values: Vec<_> = reports.iter().map(|report| report.values.clone()).collect();
        assert_eq!(
            values,
            [None, Some(dir.path().join("values-7-0.safetensors"))]
        );
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert!(Report::load_all(Path::new("/nonexistent")).0.is_empty());
    }
}
