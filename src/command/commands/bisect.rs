//! `graphpatch bisect`: the first value in which two programs part that should compute the same.
//!
//! The first program is run twice: to record its graph, and with probes at its values; the second one once, with the same probes. If
//! values differ, both are run once more for the parameters, which have no values of their own in code of `torch.compile`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_core::graph::{self, Graph, Kind};
use graphpatch_core::patch::{self, PatchSpec, RunRange};
use graphpatch_core::path::{NodePath, Pattern, Slice};
use graphpatch_core::tensor::HostTensor;
use serde::Serialize;

use crate::commands::diff::values::{
    Dtypes, How, ValueReport, code_of, compare, graph_of, in_order, node_of,
};
use crate::commands::show::json;
use crate::commands::view::values::Statistics;
use crate::launch::batch::Interrupts;
use crate::launch::once::{Done, Program};
use crate::launch::start;
use crate::run_options::RunOptions;
use crate::terminal::{Color, LEFT, PATH, RIGHT, styled};
use crate::voice::{Stop, print, say};

const EXAMPLES: &str = "\
Examples:
  graphpatch bisect -- ./infer old.pt --against -- ./infer new.pt        two files of one model
  graphpatch bisect -- ./before x.pt --against -- ./after x.pt           two builds of a program
  graphpatch bisect -- python eager.py --against -- python compiled.py   a model, and what torch.compile makes of it
  graphpatch bisect --nodes 'layers_*.output' -- ./infer --against -- env OMP_NUM_THREADS=1 ./infer
Both programs must compute the same on every run: random numbers need a seed.
Exit codes: 0 where all values agree, 1 where some do not, 2 for an error.";

/// What separates the two programs.
const AGAINST: [&str; 2] = ["--against", "--"];

/// Run two programs that should compute the same, and find the first value in which they part
#[derive(Args)]
#[command(
    after_long_help = EXAMPLES,
    override_usage = "graphpatch bisect [OPTIONS] -- PROGRAM [ARGS]... --against -- OTHER [ARGS]..."
)]
pub struct Bisect {
    /// Which values are compared: a path with * (within a name), ** (any names), ?, [0-5], {a,b}; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    nodes: Vec<Pattern>,
    /// Elements are equal if their distance is not more than this, absolutely or relative to the larger one
    #[arg(long, default_value_t = 1e-4, value_name = "T")]
    tolerance: f64,
    /// As JSON, with all values that differ; an infinite distance, as from NaN to a number, is the text "inf" there
    #[arg(long)]
    json: bool,
    /// When to color
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    options: RunOptions,
    /// Both programs with their arguments, `--against --` between them
    #[arg(last = true, required = true, value_name = "PROGRAMS")]
    command: Vec<OsString>,
}

/// A program that is run, and what it is called.
struct Side<'a> {
    name: &'static str,
    program: Program<'a>,
}

/// What a side has kept.
type Values = Vec<(String, HostTensor)>;

/// What was found.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<First>,
    /// How many values agree.
    agree: usize,
    /// In the order of the first program's nodes.
    differences: Vec<ValueReport>,
    /// Values of other sizes, where what the programs return agrees.
    unlike: Vec<ValueReport>,
    only_first: Vec<String>,
    only_second: Vec<String>,
}

/// The first value in which the programs part.
#[derive(Serialize)]
struct First {
    #[serde(flatten)]
    report: ValueReport,
    one: Statistics,
    other: Statistics,
}

impl Bisect {
    pub fn run(self) -> Result<u8, Stop> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Stop::usage("--tolerance: expected a number of at least 0"));
        }
        let (one, other) = self.programs()?;
        start::check_program(one)?;
        start::check_program(other)?;
        self.options.check()?;
        let interrupts = Interrupts::catch();
        let dir = start::directory()?;
        let library = start::library(dir.path())?;
        let sides = [("the first program", one), ("the second program", other)]
            .map(|(name, argv)| self.side(name, argv, &library, dir.path()));
        match self.compare(&sides)? {
            Some(found) => {
                print(&match self.json {
                    true => json(&found)?,
                    false => found.text(self.tolerance, self.color.is_on()),
                })?;
                Ok(found.first.is_some().into())
            }
            None => {
                say("interrupted: nothing was compared yet");
                let signal = interrupts.came().unwrap_or(0);
                Ok(u8::try_from(128 + signal).unwrap_or(1))
            }
        }
    }

    fn programs(&self) -> Result<(&[OsString], &[OsString]), Stop> {
        let between = self.command.windows(2).position(|two| two == AGAINST);
        let Some(at) = between else {
            return Err(Stop::usage(
                "there is no second program: write -- PROGRAM [ARGS]... --against -- OTHER [ARGS]...",
            ));
        };
        Ok((&self.command[..at], &self.command[at + AGAINST.len()..]))
    }

    fn side<'a>(
        &'a self,
        name: &'static str,
        argv: &'a [OsString],
        library: &Path,
        dir: &'a Path,
    ) -> Side<'a> {
        Side {
            name,
            program: Program {
                argv,
                options: &self.options,
                library: PathBuf::from(library),
                dir,
                threads: None,
                limit: None,
                compiled_values: true,
            },
        }
    }

    /// Runs both sides. `None` if a signal came.
    fn compare(&self, [one, other]: &[Side<'_>; 2]) -> Result<Option<Found>, Stop> {
        let Some(recorded) = one.run(true, &[])? else {
            return Ok(None);
        };
        let graphs = recorded.graphs();
        if graphs.iter().all(|graph| graph.root.children.is_empty()) {
            return Err(one.without_values("no libtorch model ran in it", &recorded));
        }
        let nodes = graph::matching(&graphs, &self.nodes)
            .map_err(|why| Stop::usage(format!("--nodes {why}")))?;
        let (parameters, computed): (Vec<NodePath>, Vec<NodePath>) = nodes
            .into_iter()
            .partition(|path| is_parameter(path, &graphs));
        let mut told = BTreeSet::new();
        let Some(mut kept) = values_of([one, other], &computed, &mut told)? else {
            return Ok(None);
        };
        let parted = |kept: &[Values; 2]| {
            let reports = compare(&kept[0], &kept[1], self.tolerance, Dtypes::Compare);
            reports.iter().any(ValueReport::is_of_both)
        };
        if computed.is_empty() || parted(&kept) {
            let Some(more) = values_of([one, other], &parameters, &mut told)? else {
                return Ok(None);
            };
            for (side, more) in kept.iter_mut().zip(more) {
                side.extend(more);
            }
        }
        let found = Found::of(&kept, &graphs, self.tolerance);
        if found.agree + found.differences.len() + found.unlike.len() == 0 {
            return Err(Stop::usage(
                "the two programs have no value in common: do both run this model?",
            ));
        }
        Ok(Some(found))
    }
}

/// What both programs keep at these nodes. `None` if a signal came. What there is to be told is told once.
fn values_of(
    sides: [&Side<'_>; 2],
    nodes: &[NodePath],
    told: &mut BTreeSet<String>,
) -> Result<Option<[Values; 2]>, Stop> {
    let mut both = [Values::new(), Values::new()];
    if nodes.is_empty() {
        return Ok(Some(both));
    }
    let probes: Vec<PatchSpec> = nodes.iter().map(probe).collect();
    for (side, values) in sides.into_iter().zip(&mut both) {
        let Some(done) = side.run(false, &probes)? else {
            return Ok(None);
        };
        let (found, lost) = done.values();
        if found.is_empty() {
            return Err(side.without_values("none of the values was computed in it", &done));
        }
        let failure = done.failure().into_iter();
        let notes = done.notes().into_iter().map(str::to_owned);
        for text in notes.chain(lost).chain(failure) {
            let text = format!("{}: {text}", side.name);
            if told.insert(text.clone()) {
                say(text);
            }
        }
        *values = found;
    }
    Ok(Some(both))
}

impl Side<'_> {
    fn run(&self, record: bool, probes: &[PatchSpec]) -> Result<Option<Done>, Stop> {
        self.program.run(record, probes)
    }

    /// The end of the command where a run has given nothing to compare.
    fn without_values(&self, why: &str, done: &Done) -> Stop {
        let mut text = format!("{}: {why}", self.name);
        for more in done
            .failure()
            .iter()
            .map(String::as_str)
            .chain(done.notes())
        {
            let _ = write!(text, "; {more}");
        }
        Stop::usage(text)
    }
}

fn probe(path: &NodePath) -> PatchSpec {
    PatchSpec {
        path: path.clone(),
        slice: Slice::whole(),
        kind: patch::Kind::Probe,
        runs: RunRange::default(),
    }
}

fn is_parameter(path: &NodePath, graphs: &[Graph]) -> bool {
    let node = graph_of(graphs, path).and_then(|(_, graph)| graph.node(&path.without_root()));
    node.is_some_and(|node| node.kind == Kind::Parameter)
}

/// Whether the node of a value is what its root returns.
fn is_result(key: &str) -> bool {
    node_of(key).is_some_and(|path| {
        let names = path.without_root().names;
        names.len() == 1 && names[0] == "output"
    })
}

impl Found {
    fn of(kept: &[Values; 2], graphs: &[Graph], tolerance: f64) -> Found {
        let [a, b] = kept;
        let reports = in_order(compare(a, b, tolerance, Dtypes::Compare), graphs);
        let (mut differences, mut unlike) = (Vec::new(), Vec::new());
        let (mut only_first, mut only_second) = (Vec::new(), Vec::new());
        for report in reports {
            match report.how {
                How::OnlyA { .. } => only_first.push(report.key),
                How::OnlyB { .. } => only_second.push(report.key),
                How::Kind { .. } => unlike.push(report),
                How::Distance(_) | How::Bytes { .. } => differences.push(report),
            }
        }
        // Compiled code computes some values, masks for instance, in other sizes than the model.
        let compared = |key: &String| is_result(key) && !only_first.contains(key);
        let results = a.iter().filter(|(key, _)| compared(key)).count();
        let agree = a.len() - only_first.len() - differences.len() - unlike.len();
        if results == 0 || unlike.iter().any(|report| is_result(&report.key)) {
            differences.append(&mut unlike);
            differences = in_order(differences, graphs);
        }
        let value = |side: &Values, key: &str| {
            let found = side.iter().find(|(other, _)| other == key);
            found.map(|(_, value)| Statistics::of(key.to_owned(), value))
        };
        let first = differences.first().and_then(|report| {
            Some(First {
                report: ValueReport {
                    code: code_of(&report.key, graphs),
                    ..report.clone()
                },
                one: value(a, &report.key)?,
                other: value(b, &report.key)?,
            })
        });
        Found {
            first,
            agree,
            differences,
            unlike,
            only_first,
            only_second,
        }
    }
}

impl Found {
    fn text(&self, tolerance: f64, color: bool) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        if let Some(first) = &self.first {
            let _ = writeln!(text, "{}", first.heading(tolerance, color));
            let _ = writeln!(
                text,
                "  first program:  {}",
                styled(&told(&first.one), LEFT, color)
            );
            let _ = writeln!(
                text,
                "  second program: {}",
                styled(&told(&first.other), RIGHT, color)
            );
            for line in first.report.code.iter().flat_map(|code| code.lines()) {
                let _ = writeln!(text, "    {line}");
            }
        }
        let _ = write!(text, "{} of the values agree", self.agree);
        if !self.differences.is_empty() {
            let _ = write!(text, ", {} do not", self.differences.len());
        }
        if !self.unlike.is_empty() {
            let _ = write!(text, ", {} have other sizes", self.unlike.len());
        }
        text.push('\n');
        for (whose, keys) in [("first", &self.only_first), ("second", &self.only_second)] {
            if let [one, ..] = &keys[..] {
                let count = keys.len();
                let _ = writeln!(text, "only the {whose} program has {count}, such as {one}");
            }
        }
        text
    }
}

impl First {
    fn heading(&self, tolerance: f64, color: bool) -> String {
        let path = styled(&self.report.key, PATH, color);
        match &self.report.how {
            How::Distance(d) => {
                let at: Vec<String> = d.first.iter().flatten().map(i64::to_string).collect();
                format!(
                    "{path}: {} of {} elements differ by more than {tolerance:e}, by up to {:.3e}, first at [{}]",
                    d.count,
                    self.one.count,
                    d.max_abs,
                    at.join(", ")
                )
            }
            How::Bytes { dtype } => format!("{path}: different {dtype} elements"),
            _ => format!("{path}: different sizes"),
        }
    }
}

/// A value in one line.
fn told(value: &Statistics) -> String {
    let sizes: Vec<String> = value.shape.iter().map(i64::to_string).collect();
    let mut text = format!("Tensor({}) {}", sizes.join(", "), value.dtype);
    let numbers = [
        ("min", value.min),
        ("max", value.max),
        ("mean", value.mean),
        ("norm", value.l2),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            let _ = write!(text, ", {name} {number:.6}");
        }
    }
    for (name, count) in [("NaN", value.nan), ("Inf", value.inf)] {
        if count > 0 {
            let _ = write!(text, ", {count} {name}");
        }
    }
    text
}
