//! The reports of all processes of a `graphpatch run`, as one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use graphpatch_core::graph::{Graph, GraphFile};
use graphpatch_core::patch::PatchSpec;
use graphpatch_core::tensor::{HostTensor, safetensors};
use graphpatch_protocol::{Lost, PatchReport, Report};

use crate::launch::kept;
use crate::launch::summary::title;

/// The reports of all processes.
pub struct Outcome {
    pub(super) reports: Vec<Report>,
    /// A message for each report that cannot be read.
    pub(super) damaged: Vec<String>,
    pub(super) lost: Lost,
    /// Where the processes have left all this.
    pub(super) dir: PathBuf,
}

impl Outcome {
    /// Reads what the processes have left in `dir`.
    pub fn read(dir: &Path) -> Outcome {
        let (reports, damaged) = Report::load_all(dir);
        let lost = Lost::load(dir);
        Outcome {
            reports,
            damaged,
            lost,
            dir: dir.to_owned(),
        }
    }

    /// The graphs of all processes; those of the same name are one.
    pub fn graphs(&self) -> Vec<Graph> {
        merged(self.reports.iter())
    }

    /// Why the session could not attach in a process, if there is one.
    pub fn error(&self) -> Option<&str> {
        self.reports
            .iter()
            .find_map(|report| report.error.as_deref())
    }

    /// The last value that a probe has kept under a path, or all those of a record; process by process.
    pub fn kept(&self, path: &str, record: bool) -> Result<Vec<HostTensor>, String> {
        let mut found = Vec::new();
        for report in &self.reports {
            if let Some(why) = report.unsaved.first() {
                return Err(why.clone());
            }
            let Some(file) = &report.values else { continue };
            let mut values: Vec<(u64, HostTensor)> = safetensors::read_all(file)
                .map_err(|why| why.to_string())?
                .into_iter()
                .filter_map(|(key, value)| match key.strip_prefix(path)? {
                    "" if !record => Some((0, value)),
                    rest if record => Some((rest.strip_prefix('#')?.parse().ok()?, value)),
                    _ => None,
                })
                .collect();
            values.sort_by_key(|(number, _)| *number);
            found.extend(values.into_iter().map(|(_, value)| value));
        }
        Ok(found)
    }

    /// The counts of each patch over all processes.
    pub fn patches(&self, specs: &[PatchSpec]) -> Vec<PatchReport> {
        let mut sums: Vec<PatchReport> = specs
            .iter()
            .map(|spec| PatchReport {
                text: title(spec),
                ..PatchReport::default()
            })
            .collect();
        for report in &self.reports {
            // The patches have the same order in every process, since all processes got the same list.
            for (sum, patch) in sums.iter_mut().zip(&report.patches) {
                sum.matched += patch.matched;
                sum.applied += patch.applied;
                sum.failed += patch.failed;
                sum.kept += patch.kept;
                sum.dropped += patch.dropped;
                sum.last_error = patch.last_error.clone().or(sum.last_error.take());
            }
        }
        sums
    }

    pub(super) fn runs(&self) -> u64 {
        self.reports.iter().map(|report| report.runs).sum()
    }

    /// Saves the graphs, and returns a message for each file that could not be written. If nothing was recorded, an existing
    /// file stays as it is.
    pub(super) fn save(&self, file: &Path) -> Vec<String> {
        let save = |(file, reports): (PathBuf, Vec<&Report>)| {
            let graphs = merged(reports.into_iter());
            if graphs.is_empty() {
                return Some(not_written(&file, "no model ran"));
            }
            let done = GraphFile::new(graphs).save(&file);
            done.err().map(|error| error.to_string())
        };
        self.by_rank(file).into_iter().filter_map(save).collect()
    }

    /// Saves the kept values, and returns a message for each that could not be saved.
    pub(super) fn save_kept(&self, file: &Path) -> Vec<String> {
        let files = self.by_rank(file).into_iter();
        files
            .flat_map(|(file, reports)| {
                if reports.iter().all(|report| report.values.is_none()) {
                    let mut lost: Vec<String> =
                        reports.iter().flat_map(|r| r.unsaved.clone()).collect();
                    lost.push(not_written(&file, "no value was kept"));
                    return lost;
                }
                kept::save(reports.into_iter(), &file).unwrap_or_else(|why| vec![why.to_string()])
            })
            .collect()
    }

    /// One file for all processes, or one for each of several ranks.
    pub(super) fn by_rank(&self, file: &Path) -> Vec<(PathBuf, Vec<&Report>)> {
        let ranks: BTreeSet<&str> = self
            .reports
            .iter()
            .filter_map(|report| report.rank.as_deref())
            .collect();
        if ranks.len() < 2 {
            return vec![(file.to_owned(), self.reports.iter().collect())];
        }
        let of = |rank: &str| {
            let reports = self.reports.iter();
            reports
                .filter(|report| report.rank.as_deref() == Some(rank))
                .collect()
        };
        ranks
            .into_iter()
            .map(|rank| (with_rank(file, rank), of(rank)))
            .collect()
    }
}

/// The message that a file was not written, and why.
pub(super) fn not_written(file: &Path, why: &str) -> String {
    let now = match file.exists() {
        true => "stays as it was",
        false => "is not written",
    };
    format!("{}: {why}: the file {now}", file.display())
}

/// Graphs of the same name become one, in the order met.
fn merged<'a>(reports: impl Iterator<Item = &'a Report>) -> Vec<Graph> {
    let mut all: Vec<Graph> = Vec::new();
    for graph in reports.flat_map(|report| &report.graphs) {
        match all.iter_mut().find(|known| known.name == graph.name) {
            Some(known) => known.merge(graph.clone()),
            None => all.push(graph.clone()),
        }
    }
    all
}

/// `g.json` of rank 1 is `g.rank1.json`.
fn with_rank(file: &Path, rank: &str) -> PathBuf {
    let safe: String = rank
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .collect();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = match file.extension() {
        Some(extension) => format!("{stem}.rank{safe}.{}", extension.to_string_lossy()),
        None => format!("{stem}.rank{safe}"),
    };
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pid: u32, rank: Option<&str>, name: &str, matched: u64) -> Report {
        let patch = PatchReport {
            text: "a=zero".into(),
            matched,
            applied: matched,
            ..PatchReport::default()
        };
        Report {
            pid,
            rank: rank.map(str::to_string),
            runs: 2,
            graphs: vec![Graph::new(name)],
            patches: vec![patch],
            ..Report::default()
        }
    }

    #[test]
    fn ranks_have_their_own_files() {
        assert_eq!(
            with_rank(Path::new("/a/g.json"), "1"),
            Path::new("/a/g.rank1.json")
        );
        assert_eq!(with_rank(Path::new("g"), "0/x"), Path::new("g.rank0_x"));
        let dir = tempfile::tempdir().expect("dir");
        let outcome = |ranks: [Option<&str>; 2]| Outcome {
            reports: ranks
                .iter()
                .map(|rank| report(1, *rank, "m.forward", 1))
                .collect(),
            damaged: vec![],
            lost: Lost::default(),
            dir: PathBuf::new(),
        };
        let lost = outcome([Some("0"), Some("1")]).save(&dir.path().join("g.json"));
        assert!(lost.is_empty(), "{lost:?}");
        let lost = outcome([Some("0"), Some("0")]).save(&dir.path().join("h.json"));
        assert!(lost.is_empty(), "{lost:?}");
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .expect("dir")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into())
            .collect();
        names.sort();
        assert_eq!(names, ["g.rank0.json", "g.rank1.json", "h.json"]);
    }

    #[test]
    fn processes_add_up() {
        let specs: Vec<PatchSpec> = vec!["a=zero".parse().expect("patch")];
        let reports = vec![
            report(1, None, "m.forward", 3),
            report(2, None, "n.forward", 4),
            report(3, None, "m.forward", 0),
        ];
        let outcome = Outcome {
            reports,
            damaged: vec![],
            lost: Lost::default(),
            dir: PathBuf::new(),
        };
        let sums = outcome.patches(&specs);
        assert_eq!((sums[0].matched, sums[0].applied), (7, 7));
        assert_eq!(merged(outcome.reports.iter()).len(), 2);
    }
}
