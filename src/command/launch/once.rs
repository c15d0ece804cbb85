//! One run of a program whose results are wanted: it is started and waited for, its output is kept, its reports are read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::launch::batch::{self, Ended};
use crate::launch::failure::{folded, why_failed};
use crate::launch::forks::Forks;
use crate::launch::kept;
use graphpatch_core::graph::Graph;
use graphpatch_core::patch::{OnError, PatchSpec};
use graphpatch_core::tensor::HostTensor;
use graphpatch_protocol::forks::RunFolder;
use graphpatch_protocol::{OPTIONS_FILE, Options};

use crate::launch::outcome::Outcome;
use crate::launch::start;
use crate::run_options::Listing;
use crate::voice::Stop;

/// How many lines of a program that failed are repeated.
const LAST_LINES: usize = 8;

/// What all runs of a program have in common.
pub struct Program<'a> {
    pub argv: &'a [OsString],
    pub options: &'a Listing,
    /// What a patch does that cannot be applied.
    pub on_error: OnError,
    pub library: PathBuf,
    /// The directory in which each run has a directory of its own while it lasts.
    pub dir: &'a Path,
    /// What `OMP_NUM_THREADS` is set to.
    pub threads: Option<usize>,
    pub limit: Option<Duration>,
    /// Whether probes keep the values that code of `torch.compile` itself computes.
    pub compiled_values: bool,
    /// Where it is started once, and forked for each run.
    pub forks: Option<Forks>,
}

impl Program<'_> {
    /// Starts the program, and has it forked for each run from now on.
    pub fn start_once(&mut self) -> Result<(), Stop> {
        let folder = RunFolder(self.dir.join("forked"));
        let fail =
            |why: std::io::Error| Stop::usage(format!("{}: {why}", self.argv[0].to_string_lossy()));
        std::fs::create_dir_all(folder.reports()).map_err(fail)?;
        // Recording makes all runs wanted, so that the first one is not missed. It is each fork's own matter what it keeps.
        let options = Options {
            fork: Some(folder.0.clone()),
            ..self
                .options
                .options(true, &[], &folder.reports(), OnError::Raise)?
        };
        let command = self.command(&options)?;
        self.forks = Some(Forks::start(command, folder).map_err(fail)?);
        Ok(())
    }

    /// Runs the program to its end. `None` if a signal asks the command to end.
    pub fn run(&self, record: bool, patches: &[PatchSpec]) -> Result<Option<Done>, Stop> {
        let dir = tempfile::tempdir_in(self.dir)
            .map_err(|why| Stop::usage(format!("{}: {why}", self.dir.display())))?;
        let folder = RunFolder(dir.path().to_owned());
        let fail = |why: std::io::Error| Stop::usage(format!("{}: {why}", dir.path().display()));
        std::fs::create_dir(folder.reports()).map_err(fail)?;
        let options = Options {
            compiled_values: self.compiled_values,
            ..self
                .options
                .options(record, patches, &folder.reports(), self.on_error)?
        };
        let [stdout, stderr] = [folder.stdout(), folder.stderr()];
        let outputs = [File::create(&stdout), File::create(&stderr)];
        let [stdout_file, stderr_file] = outputs.map(|file| file.map_err(fail));
        let began = Instant::now();
        let ended = match &self.forks {
            Some(forks) => {
                options.save(&folder.reports().join(OPTIONS_FILE))?;
                forks.run(&folder, self.limit)?
            }
            None => {
                let mut command = self.command(&options)?;
                command.stdout(stdout_file?).stderr(stderr_file?);
                batch::run(&mut command, self.limit).map_err(|why| {
                    let name = command.get_program().to_string_lossy();
                    Stop::usage(format!("{name}: {why}"))
                })?
            }
        };
        if ended == Ended::Interrupted {
            return Ok(None);
        }
        let seconds = began.elapsed().as_secs_f64();
        let before = self.forks.as_ref().map(Forks::written);
        let text = |before: Option<PathBuf>, file: &Path| {
            let mut bytes = match before {
                Some(before) => std::fs::read(before).map_err(fail)?,
                None => Vec::new(),
            };
            bytes.extend(std::fs::read(file).map_err(fail)?);
            Ok::<String, Stop>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Some(Done {
            ended,
            seconds,
            stdout: text(before.map(RunFolder::stdout), &stdout)?,
            stderr: text(before.map(RunFolder::stderr), &stderr)?,
            outcome: Outcome::read(&folder.reports()),
            limit: self.limit,
            _dir: Some(dir),
        }))
    }

    /// The command that starts the program with these options.
    fn command(&self, options: &Options) -> Result<Command, Stop> {
        let mut command = start::command(self.argv, options, &self.library)?;
        if let Some(threads) = self.threads {
            command.env("OMP_NUM_THREADS", threads.to_string());
        }
        Ok(command)
    }
}

/// A run that has ended.
pub struct Done {
    ended: Ended,
    pub seconds: f64,
    pub stdout: String,
    pub stderr: String,
    outcome: Outcome,
    limit: Option<Duration>,
    /// The directory of the run. It must exist as long as this, since kept values are read from it on demand.
    _dir: Option<tempfile::TempDir>,
}

impl Done {
    pub fn graphs(&self) -> Vec<Graph> {
        self.outcome.graphs()
    }

    /// Why this run cannot be used: it failed, or one of `patches` was not applied. These are the patches that the run was
    /// given, or the first ones of them.
    pub fn fault(&self, patches: &[PatchSpec]) -> Option<String> {
        if let Some(error) = self.outcome.error() {
            return Some(format!("it ran untouched: {error}"));
        }
        let counts = self.outcome.patches(patches);
        for (spec, patch) in patches.iter().zip(&counts) {
            if patch.failed > 0 {
                let why = patch.last_error.as_deref();
                let why = why_failed(spec, why.unwrap_or("for no known reason"));
                return Some(format!("{} failed{why}", patch.text));
            }
        }
        let ended = match self.ended {
            Ended::With(status) => start::exit_code(status),
            Ended::TooLong | Ended::Interrupted => {
                let limit = self.limit.map_or(0.0, |limit| limit.as_secs_f64());
                return Some(format!("it took longer than {limit} s"));
            }
        };
        if ended != 0 {
            let last = self
                .stderr
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty());
            let last = last.map_or(String::new(), |line| format!(": {}", line.trim()));
            return Some(format!("it ended with code {ended}{last}"));
        }
        let never = counts.iter().find(|patch| patch.matched == 0)?;
        Some(format!("{} never matched", never.text))
    }

    /// How it ended, if that was not well.
    pub fn failure(&self) -> Option<String> {
        if let Some(error) = self.outcome.error() {
            return Some(format!("it ran untouched: {error}"));
        }
        match self.ended {
            Ended::With(status) if status.success() => None,
            Ended::With(status) => {
                let code = start::exit_code(status);
                let last = self.last_lines();
                Some(format!("it ended with code {code}{last}"))
            }
            Ended::TooLong | Ended::Interrupted => Some("it was ended".to_owned()),
        }
    }

    pub fn ended_well(&self) -> bool {
        matches!(self.ended, Ended::With(status) if status.success())
    }

    /// The last lines of stderr, or of stdout where that is empty, as the rest of a message that has the very last one;
    /// empty without others, and where the program ended well.
    pub fn last_lines(&self) -> String {
        if self.ended_well() {
            return String::new();
        }
        let written = [("stderr", &self.stderr), ("stdout", &self.stdout)];
        let written = written.map(|(name, text)| (name, folded(text)));
        let lines = written.each_ref().map(|(name, text)| {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            (*name, lines.collect::<Vec<&str>>())
        });
        let Some((name, lines)) = lines.into_iter().find(|(_, lines)| !lines.is_empty()) else {
            return String::new();
        };
        if name == "stderr" && lines.len() == 1 {
            return String::new();
        }
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("\nits last lines on {name}:\n  {}", last.join("\n  "))
    }

    /// The last value that was kept of a path, or with `all` every one, over all processes.
    pub fn kept(&self, path: &str, all: bool) -> Result<Vec<HostTensor>, String> {
        self.outcome.kept(path, all)
    }

    /// All values that were kept, by their keys, and a text for each that was lost.
    pub fn values(&self) -> (Vec<(String, HostTensor)>, Vec<String>) {
        kept::collect(self.outcome.reports.iter())
    }

    /// What the processes noted, each once.
    pub fn notes(&self) -> BTreeSet<&str> {
        let reports = self.outcome.reports.iter();
        reports
            .flat_map(|report| report.notes.iter().map(String::as_str))
            .collect()
    }

    #[cfg(test)]
    pub fn printed(stdout: &str, stderr: &str) -> Done {
        use std::os::unix::process::ExitStatusExt;
        Done {
            ended: Ended::With(std::process::ExitStatus::from_raw(0)),
            seconds: 0.0,
            stdout: stdout.into(),
            stderr: stderr.into(),
            outcome: Outcome::read(Path::new("/nonexistent")),
            limit: None,
            _dir: None,
        }
    }
}
