//! What each command asks of the process, and how its answer is shown.

use std::fmt::Write;
use std::time::{Duration, Instant};

use graphpatch_core::patch::PatchSpec;
use graphpatch_protocol::live::{PatchState, Request, RootTree, Statistics};
use serde_json::Value;

use super::arguments::Command;
use super::connection::{Connection, read};
use crate::commands::vllm;
use crate::patch_arguments::absolute;
use crate::voice::{Stop, say};

/// Sends the command's request and returns the answer of the process.
pub fn ask(connection: &mut Connection, command: &Command) -> Result<Value, Stop> {
    let request = match command {
        Command::Tree { path, depth } => return tree(connection, path, *depth),
        Command::Patch { patch } => add(patch)?,
        Command::Probe { path } => Request::Probe {
            path: path.clone(),
            hold: false,
        },
        Command::Record { path } => add(&record(path))?,
        Command::Off { number } => Request::Off { number: *number },
        Command::On { number } => Request::On { number: *number },
        Command::Remove { number } => Request::Remove { number: *number },
        Command::Value {
            number,
            index,
            elements,
        } => Request::Value {
            number: *number,
            index: *index,
            elements: *elements,
        },
        Command::Counts | Command::Watch { .. } => Request::Counts {},
        Command::Notes => Request::Notes {},
        Command::Save { file } => {
            let absolute = std::path::absolute(file);
            let file = absolute.map_err(|why| Stop::usage(format!("{}: {why}", file.display())))?;
            Request::Save { file }
        }
        Command::Stop => Request::Stop {},
        Command::Detach => Request::Detach {},
    };
    connection.ask(&request)
}

/// The request for a patch. Files in it are named by absolute paths, as the process may run in another directory.
pub fn add(patch: &str) -> Result<Request, Stop> {
    let spec: PatchSpec = patch.parse()?;
    let spec = absolute(&[spec])?
        .pop()
        .ok_or_else(|| Stop::usage("no patch"))?;
    Ok(Request::Patch {
        patch: spec.to_string(),
        hold: false,
    })
}

fn record(path: &str) -> String {
    match path.rsplit_once(':') {
        Some((path, limit)) if limit.parse::<u64>().is_ok() => format!("{path}=record:{limit}"),
        _ => format!("{path}=record"),
    }
}

/// How long the next run is waited for, when there is a graph already.
const PATIENCE: Duration = Duration::from_secs(1);
const SERVERS_PATIENCE: Duration = Duration::from_secs(60);

/// Asks for the trees. If nothing was recorded yet, the process records until there is a graph of each module that it calls in turn; it
/// stops when this command disconnects.
fn tree(
    connection: &mut Connection,
    path: &Option<String>,
    depth: Option<usize>,
) -> Result<Value, Stop> {
    let request = Request::Tree {
        path: path.clone(),
        depth,
    };
    let mut answer = connection.ask(&request)?;
    let is_empty = |answer: &Value| {
        answer
            .get("roots")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    };
    if !is_empty(&answer) {
        return Ok(answer);
    }
    connection.ask(&Request::Recording {
        on: true,
        hold: true,
    })?;
    say("nothing was recorded yet: waiting for the next run to end (Ctrl-C gives up)");
    let begin = runs(connection)?;
    let (mut before, mut last) = (begin, Instant::now());
    // A server calls several modules for each token, and recording may have begun between two of them.
    let patience = match vllm::part(connection.process.pid) {
        Some(vllm::Part::Model { .. }) => SERVERS_PATIENCE,
        _ => PATIENCE,
    };
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = runs(connection)?;
        answer = connection.ask(&request)?;
        if now != before {
            (before, last) = (now, Instant::now());
        }
        let roots = answer.get("roots").and_then(Value::as_array);
        let roots = roots.map_or(0, Vec::len) as u64;
        // A run counts from its beginning, and its root from its end.
        let all = now.saturating_sub(begin) >= 3 * roots + 2;
        if roots > 0 && (all || last.elapsed() > patience) {
            return Ok(answer);
        }
    }
}

/// How many runs there were.
fn runs(connection: &mut Connection) -> Result<u64, Stop> {
    let answer = connection.ask(&Request::Counts {})?;
    Ok(answer
        .get("runs")
        .and_then(Value::as_u64)
        .unwrap_or_default())
}

/// Tells what the answer about a new patch, probe or record says besides its number.
pub fn tell(answer: &Value) {
    if let Some(note) = answer.get("note").and_then(Value::as_str) {
        say(note);
    }
}

/// An answer as text.
pub fn text(command: &Command, answer: &Value) -> Result<String, Stop> {
    let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
    Ok(match command {
        Command::Tree { .. } => {
            let roots: Vec<RootTree> = read(part("roots"))?;
            let several = roots.len() > 1;
            let shown = roots.iter().map(|root| match several {
                true => format!("{}:\n{}", root.name, root.tree),
                false => root.tree.clone(),
            });
            shown.collect()
        }
        Command::Patch { .. } | Command::Probe { .. } | Command::Record { .. } => {
            tell(answer);
            format!("{}\n", part("number"))
        }
        Command::Value { .. } => value(answer)?,
        Command::Counts | Command::Watch { .. } => {
            counts(&read::<Vec<PatchState>>(part("patches"))?)
        }
        Command::Notes => {
            let notes: Vec<String> = read(part("notes"))?;
            notes.iter().map(|note| format!("{note}\n")).collect()
        }
        Command::Save { .. } => format!(
            "{} values in {}\n",
            part("values"),
            read::<String>(part("file"))?
        ),
        Command::Off { .. }
        | Command::On { .. }
        | Command::Remove { .. }
        | Command::Stop
        | Command::Detach => String::new(),
    })
}

fn value(answer: &Value) -> Result<String, Stop> {
    let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
    let shape: Vec<i64> = read(part("shape"))?;
    let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
    let mut text = format!(
        "{}[{}]  value {} of {}\n{}\n",
        read::<String>(part("dtype"))?,
        sizes.join(", "),
        part("index").as_u64().unwrap_or_default() + 1,
        part("kept"),
        statistics(&read(part("statistics"))?)
    );
    for element in read::<Vec<Value>>(part("elements"))? {
        let shown = match element.as_f64() {
            Some(element) => number(Some(element)),
            None => element.as_str().unwrap_or_default().to_owned(),
        };
        let _ = writeln!(text, "{shown}");
    }
    Ok(text)
}

fn number(number: Option<f64>) -> String {
    number.map_or("-".into(), |number| format!("{number:.6}"))
}

/// A histogram as a row of bars. A part with any element at all is not empty.
fn bars(counts: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let bar = |count: &u64| match *count {
        0 => ' ',
        count => {
            BARS[((count * BARS.len() as u64).div_ceil(most) as usize).clamp(1, BARS.len()) - 1]
        }
    };
    counts.iter().map(bar).collect()
}

/// The statistics as text. The counts of NaN and infinities come first, as they show what is wrong with a value.
pub fn statistics(of: &Statistics) -> String {
    format!(
        "nan {}  inf {}  norm {}  mean {}  min {}  |{}|  max {}",
        of.nan,
        of.inf,
        number(of.norm),
        number(of.mean),
        number(of.min),
        bars(&of.histogram),
        number(of.max)
    )
}

fn counts(patches: &[PatchState]) -> String {
    let mut text = String::new();
    for patch in patches {
        let off = if patch.on { "" } else { " (off)" };
        let _ = write!(
            text,
            "{:>4}  {}{off}  matched {}  applied {}  failed {}",
            patch.number, patch.text, patch.matched, patch.applied, patch.failed
        );
        if let Some(kept) = patch.kept {
            let _ = write!(text, "  kept {kept}");
        }
        if let Some(why) = &patch.last_error {
            let _ = write!(text, "\n      {why}");
        }
        text.push('\n');
    }
    text
}
