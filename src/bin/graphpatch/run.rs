//! `graphpatch run`: checks everything that can be checked, then starts the program with the library preloaded.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use clap::{Args, ValueEnum};
use graphpatch::graph::GraphFile;
use graphpatch::patch::{OnError, PatchSpec};
use graphpatch::preload::launch::launch;
use graphpatch::preload::{OPTIONS_VARIABLE, Operations, Options};
use graphpatch::torch::loader::find_in_path;

use crate::asked::{Asked, absolute};
use crate::outcome::Outcome;
use crate::{Stop, check, library, python};

/// Run PROGRAM, record its models' NodePath graph, patch values on the way
#[derive(Args)]
pub struct Run {
    /// Print the NodePath tree on stderr when PROGRAM ends
    #[arg(long)]
    tree: bool,
    /// Save the recorded graph as JSON
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    /// Where the values of probes and records go (safetensors)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// What to do when a patch cannot be applied
    #[arg(long, value_enum, default_value_t = Answer::Raise)]
    on_error: Answer,
    /// List operations that are called outside of all models, flat, in runs of a root `operations`
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Flat::Auto)]
    operations: Flat,
    /// Let such a run begin anew at each call of operation NAME; `MODULE.NAME` if it reads a parameter of MODULE (repeatable)
    #[arg(long, value_name = "NAME")]
    run_at: Vec<String>,
    /// Print a table of the patches: matched, applied, failed, kept
    #[arg(long)]
    summary: bool,
    /// Check all paths against a saved graph before PROGRAM starts
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Answer {
    /// Throw an error that the program sees
    Raise,
    /// Leave the value alone and count it
    Skip,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Flat {
    /// In C++ programs that neither call TorchScript nor mark runs themselves
    Auto,
    /// In all programs but Python's, beside the models that they call
    Always,
    /// Nowhere
    Never,
}

/// What the user wants to see when the program has ended.
pub struct Wanted {
    pub tree: bool,
    pub summary: bool,
    pub graph: Option<PathBuf>,
    pub save: Option<PathBuf>,
    pub patches: Vec<PatchSpec>,
    pub program: String,
    pub run_at: Vec<String>,
}

impl Wanted {
    /// Whether anything of a model is to be seen or changed.
    pub fn wants_inside(&self) -> bool {
        self.tree || self.graph.is_some() || !self.patches.is_empty()
    }
}

impl Run {
    pub fn run(self) -> Result<u8, Stop> {
        let patches = self.asked.specs()?;
        check_save(&patches, self.save.as_deref())?;
        check_run_at(&self.run_at, self.operations)?;
        if let Some(file) = &self.against {
            check::against(&GraphFile::load(file)?.graphs, &patches)?;
        }
        for file in [&self.graph, &self.save].into_iter().flatten() {
            check_writable(file)?;
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Stop::usage("no PROGRAM"));
        };
        check_program(program)?;
        let dir = tempfile::Builder::new()
            .prefix("graphpatch-")
            .tempdir()
            .map_err(|why| {
                Stop::usage(format!(
                    "a directory for reports in {}: {why}",
                    std::env::temp_dir().display()
                ))
            })?;
        let options = Options {
            record: self.tree || self.graph.is_some(),
            patches: absolute(&patches)?,
            on_error: match self.on_error {
                Answer::Raise => OnError::Raise,
                Answer::Skip => OnError::Skip,
            },
            operations: match self.operations {
                Flat::Auto => Operations::Auto,
                Flat::Always => Operations::Always,
                Flat::Never => Operations::Never,
            },
            run_at: self.run_at.clone(),
            report_dir: dir.path().to_path_buf(),
        };
        let options_file = dir.path().join("options.json");
        options.save(&options_file)?;
        let library = preloadable(library::find()?, dir.path())?;

        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(OPTIONS_VARIABLE, &options_file)
            .env("LD_PRELOAD", preload_list(&library));
        if options.record || !options.patches.is_empty() {
            python::prepare(&mut command, &library, dir.path());
        }
        let name = program.to_string_lossy().into_owned();
        let status = launch(&mut command).map_err(|why| Stop::usage(format!("{name}: {why}")))?;

        let program = name;
        let wanted = Wanted {
            tree: self.tree,
            summary: self.summary,
            graph: self.graph,
            save: self.save,
            patches,
            program,
            run_at: self.run_at,
        };
        let outcome = Outcome::read(dir.path());
        outcome.tell(&wanted, exit_code(status))
    }
}

/// The shell's convention: 128 and the signal's number.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn check_program(program: &OsStr) -> Result<(), Stop> {
    if find_in_path(program).is_some() {
        return Ok(());
    }
    let name = Path::new(program).display();
    Err(Stop::usage(if !program.as_bytes().contains(&b'/') {
        format!("{name}: not found in PATH")
    } else if Path::new(program).exists() {
        format!("{name}: is not an executable file")
    } else {
        format!("{name}: no such program")
    }))
}

/// Values that are kept go somewhere, and a file for them is not asked for in vain.
fn check_save(patches: &[PatchSpec], save: Option<&Path>) -> Result<(), Stop> {
    match (patches.iter().find(|patch| patch.kind.keeps()), save) {
        (Some(patch), None) => Err(Stop::usage(format!(
            "{patch}: nothing says where its values go; add --save FILE"
        ))),
        (None, Some(_)) => Err(Stop::usage(
            "--save: there are no values to save; add --probe PATH or --record PATH",
        )),
        _ => Ok(()),
    }
}

fn check_run_at(names: &[String], operations: Flat) -> Result<(), Stop> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if let Some(name) = names.iter().find(|name| !name.split('.').all(is_name)) {
        return Err(Stop::usage(format!(
            "--run-at {name}: not the name of an operation; write it as aten has it (embedding), or with the module in front \
             whose parameter it reads (wte.embedding)"
        )));
    }
    match names.first() {
        Some(name) if operations == Flat::Never => Err(Stop::usage(format!(
            "--run-at {name}: there are no such runs with --operations never"
        ))),
        _ => Ok(()),
    }
}

/// Whether a file can be made there, found out by making another one.
fn check_writable(file: &Path) -> Result<(), Stop> {
    if file.is_dir() {
        return Err(Stop::usage(format!("{}: is a directory", file.display())));
    }
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match tempfile::Builder::new()
        .prefix(".graphpatch-")
        .tempfile_in(dir)
    {
        Ok(_) => Ok(()),
        Err(why) => Err(Stop::usage(format!(
            "{}: cannot be written: {}",
            file.display(),
            why.kind()
        ))),
    }
}

/// The dynamic linker splits `LD_PRELOAD` at spaces and colons: a path with one gets a plain name.
fn preloadable(library: PathBuf, dir: &Path) -> Result<PathBuf, Stop> {
    let splits = |path: &Path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| matches!(byte, b' ' | b':'))
    };
    if !splits(&library) {
        return Ok(library);
    }
    let link = dir.join("libgraphpatch.so");
    if splits(&link) {
        return Err(Stop::usage(format!(
            "{}: a path with a space or colon cannot be preloaded",
            library.display()
        )));
    }
    std::os::unix::fs::symlink(&library, &link)
        .map_err(|why| Stop::usage(format!("{}: {why}", link.display())))?;
    Ok(link)
}

/// Ours first, so that its symbols come first; then the user's.
fn preload_list(library: &Path) -> OsString {
    let mut list = library.as_os_str().to_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        list.push(":");
        list.push(others);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(libc::SIGABRT)), 134);
    }

    #[test]
    fn awkward_library_paths() {
        let dir = tempfile::tempdir().expect("dir");
        let plain = dir.path().join("libgraphpatch.so");
        assert_eq!(
            preloadable("/a/b.so".into(), dir.path()).ok(),
            Some("/a/b.so".into())
        );
        assert_eq!(
            preloadable("/a b/c.so".into(), dir.path()).ok(),
            Some(plain.clone())
        );
        assert_eq!(plain.read_link().ok(), Some("/a b/c.so".into()));
        assert!(preloadable("/a b/c.so".into(), Path::new("/x y")).is_err());
    }

    #[test]
    fn outputs_are_checked() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(check_writable(&dir.path().join("g.json")).is_ok());
        assert!(check_writable(dir.path()).is_err());
        assert!(check_writable(&dir.path().join("absent/g.json")).is_err());
        assert!(check_program(OsStr::new("sh")).is_ok());
        assert!(check_program(dir.path().as_os_str()).is_err());
    }
}
