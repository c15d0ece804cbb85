//! What `graphpatch run` asks of the processes that it starts. A JSON file in a private directory, named in
//! [`OPTIONS_VARIABLE`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::{OnError, PatchSpec};

/// The environment variable that names the options file. Children inherit it.
pub const OPTIONS_VARIABLE: &str = "GRAPHPATCH_OPTIONS";

/// The name of the options file, which lies beside the reports.
pub const OPTIONS_FILE: &str = "options.json";

/// Whether operations outside of all runs that a host tells of are listed, flat, in runs of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operations {
    /// Where nothing else tells of runs: no TorchScript, no Python, no calls of the C ABI.
    #[default]
    Auto,
    /// In every program but Python's.
    Always,
    Never,
}

/// Everything a preloaded process needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Record the graph.
    pub record: bool,
    /// Write when each scope and operation began and ended.
    #[serde(default)]
    pub trace: bool,
    /// Patches, in the order given.
    pub patches: Vec<PatchSpec>,
    /// What happens where a patch cannot be applied.
    pub on_error: OnError,
    /// Whether operations outside of runs are listed.
    pub operations: Operations,
    /// The operations at whose calls such runs begin. If there are none, a run begins with its thread.
    pub run_at: Vec<String>,
    /// Show the inside of attention.
    #[serde(default)]
    pub inside_attention: bool,
    /// Listen for live control.
    #[serde(default)]
    pub live: bool,
    /// Probes in code of `torch.compile` keep what that code computes, and never what its operations compute one by one. Our
    /// Python package reads this.
    #[serde(default)]
    pub compiled_values: bool,
    /// Wait before the first run, and fork there for each job that comes to this folder: see [`crate::forks::Meeting`].
    #[serde(default)]
    pub fork: Option<PathBuf>,
    /// Where reports go.
    pub report_dir: PathBuf,
}

impl Options {
    /// Reads the file.
    pub fn load(file: &Path) -> Result<Options> {
        let text = std::fs::read(file).map_err(|why| Error::File {
            file: file.into(),
            why: why.to_string(),
        })?;
        serde_json::from_slice(&text).map_err(|why| Error::Format {
            file: file.into(),
            place: format!("line {} column {}", why.line(), why.column()),
            why: why.to_string(),
        })
    }

    /// Writes the file.
    pub fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|why| Error::Internal(why.to_string()))?;
        std::fs::write(file, text).map_err(|why| Error::File {
            file: file.into(),
            why: why.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("options.json");
        let options = Options {
            record: true,
            trace: true,
            patches: vec![
                "a.b[..., 0]=zero".parse().expect("patch"),
                "a.c|sub_1=add:-0.5".parse().expect("patch"),
                "a.c=replace:@/x/d.safetensors#k".parse().expect("patch"),
                PatchSpec {
                    runs: "2..".parse().expect("runs"),
                    .."a.d=record:3".parse().expect("patch")
                },
            ],
            on_error: OnError::Skip,
            operations: Operations::Always,
            run_at: vec!["wte.embedding".into()],
            inside_attention: true,
            live: true,
            compiled_values: true,
            fork: Some("/x/meeting".into()),
            report_dir: dir.path().into(),
        };
        options.save(&file).expect("save");
        assert_eq!(Options::load(&file).expect("load"), options);
        std::fs::write(&file, "{\"record\": 1").expect("write");
        assert!(matches!(Options::load(&file), Err(Error::Format { .. })));
        assert!(matches!(
            Options::load(&dir.path().join("absent")),
            Err(Error::File { .. })
        ));
    }
}
