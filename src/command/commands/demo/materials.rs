//! What the demo runs: the encoder, its sentences, and a program.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use graphpatch_core::file_error::reason;
use graphpatch_core::output::replace;

use crate::voice::{Stop, say};

/// Made by `tests/demo/template.py`.
const TEMPLATE: &[u8] = include_bytes!("encoder.zip");
const TOKENS: &str = include_str!("tokens.txt");
const SENTENCES: &str = include_str!("sentences.txt");
const ENCODER: &str = include_str!("encoder.py");
const PROGRAM: &str = include_str!("infer.py");

pub struct Materials;

impl Materials {
    /// Writes the files that the folder does not have yet.
    pub fn prepare(
        folder: &Path,
        python: &OsStr,
        program: Option<&Path>,
    ) -> Result<Materials, Stop> {
        std::fs::create_dir_all(folder).map_err(|why| Stop::not_written(folder, &why))?;
        for (name, content) in [
            ("encoder.zip", TEMPLATE),
            ("encoder.py", ENCODER.as_bytes()),
            ("tokens.txt", TOKENS.as_bytes()),
            ("sentences.txt", SENTENCES.as_bytes()),
        ] {
            keep(&folder.join(name), content)?;
        }
        if !folder.join("encoder.pt").exists() {
            say("writing the encoder (90 MB)");
            encode(folder, python)?;
        }
        match program {
            Some(program) => link(folder, program)?,
            None if folder.join("infer").exists() => {}
            None => script(folder, python)?,
        }
        Ok(Materials)
    }

    /// The two sentences that the heads are judged by.
    pub fn pair(&self) -> [&'static str; 2] {
        first_two(SENTENCES)
    }

    /// The same two sentences as token numbers.
    pub fn pair_of_tokens(&self) -> [&'static str; 2] {
        first_two(TOKENS)
    }
}

fn first_two(text: &'static str) -> [&'static str; 2] {
    let mut lines = text.lines();
    [(); 2].map(|()| lines.next().unwrap_or_default())
}

/// Writes a file, unless it is there with this content already.
fn keep(file: &Path, content: &[u8]) -> Result<(), Stop> {
    if std::fs::read(file).is_ok_and(|found| found == content) {
        return Ok(());
    }
    replace(file, content).map_err(|why| Stop::not_written(file, &why))
}

fn encode(folder: &Path, python: &OsStr) -> Result<(), Stop> {
    let mut command = Command::new(python);
    command.arg(folder.join("encoder.py")).arg(folder);
    let done = command.stdin(Stdio::null()).output();
    let name = python.to_string_lossy();
    let done = done.map_err(|why| {
        Stop::usage(format!(
            "{name}: {}; name a Python by --python",
            reason(Path::new(python), &why)
        ))
    })?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(Stop::usage(format!("the encoder: {}", why.trim_end())))
}

fn link(folder: &Path, program: &Path) -> Result<(), Stop> {
    let to = folder.join("infer");
    let program = std::fs::canonicalize(program)
        .map_err(|why| Stop::usage(format!("--program {}: {why}", program.display())))?;
    if std::fs::canonicalize(&to).is_ok_and(|now| now == program) {
        return Ok(());
    }
    let part = beside(&to);
    symlink(&program, &part)
        .and_then(|()| std::fs::rename(&part, &to))
        .map_err(|why| Stop::not_written(&to, &why))
}

/// A temporary name in the same folder that no other demo uses. The file is renamed when it is complete, as another demo may
/// already run it.
fn beside(file: &Path) -> PathBuf {
    file.with_extension(format!("{}.part", std::process::id()))
}

/// A Python script that a shell can start.
fn script(folder: &Path, python: &OsStr) -> Result<(), Stop> {
    let file = folder.join("infer");
    let Some(found) = graphpatch_loader::find_in_path(python) else {
        let name = python.to_string_lossy();
        return Err(Stop::usage(format!("--python {name}: not found in PATH")));
    };
    let text = format!("#!{}\n{PROGRAM}", found.display());
    let part = beside(&file);
    std::fs::write(&part, text)
        .and_then(|()| std::fs::set_permissions(&part, PermissionsExt::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&part, &file))
        .map_err(|why| Stop::not_written(&file, &why))
}
