//! Which processes listen, and which of them is meant.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use graphpatch_core::plain::plain_line;
use graphpatch_loader::sockets;

use super::connection::Connection;
use crate::commands::show::json;
use crate::voice::{Stop, print, say};

const HOW: &str = "start it with `graphpatch run --live -- PROGRAM`, attach to it with `graphpatch attach PID`, or have it call gp_live_start (Python: libgraphpatch.live())";

/// Connections to all processes that listen, or only to `pid`, in the order of their process ids.
fn all(pid: Option<u32>) -> Result<Vec<Connection>, Stop> {
    let mut found: Vec<Connection> = Vec::new();
    for folder in sockets::folders() {
        if folder.symlink_metadata().is_err() {
            continue;
        }
        if let Err(why) = sockets::check(&folder) {
            say(format!("{}: {why}; it is not looked at", folder.display()));
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for file in entries.map(|entry| entry.path()) {
            let Some(number) =
                number_of(&file).filter(|number| pid.is_none_or(|pid| *number == pid))
            else {
                continue;
            };
            let stream = match UnixStream::connect(&file) {
                Ok(stream) => stream,
                Err(why) => {
                    not_connected(&file, number, &why);
                    continue;
                }
            };
            match Connection::open(stream) {
                Some(Ok(connection)) => found.push(connection),
                Some(Err(why)) if pid.is_some() => return Err(why),
                Some(Err(why)) => say(why.message),
                None => {}
            }
        }
    }
    found.sort_by_key(|connection| connection.process.pid);
    Ok(found)
}

/// Removes the socket that a killed process has left behind. A process that is still there is about to listen, or to end.
fn not_connected(file: &Path, number: u32, why: &std::io::Error) {
    match why.kind() {
        ErrorKind::ConnectionRefused if !Path::new(&format!("/proc/{number}")).exists() => {
            let _ = std::fs::remove_file(file);
        }
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {}
        _ => say(format!("{}: {why}; it is not looked at", file.display())),
    }
}

fn number_of(file: &Path) -> Option<u32> {
    file.file_name()?
        .to_str()?
        .strip_suffix(".sock")?
        .parse()
        .ok()
}

/// The process that is meant, if only one can be.
pub fn only(pid: Option<u32>) -> Result<Option<Connection>, Stop> {
    let mut found = all(pid)?;
    Ok(match found.len() {
        1 => found.pop(),
        _ => None,
    })
}

/// The process that is meant.
pub fn choose(pid: Option<u32>) -> Result<Connection, Stop> {
    let mut found = all(pid)?;
    match (found.len(), pid) {
        (1, _) => found.pop().ok_or_else(|| Stop::usage("no process")),
        (0, Some(pid)) => Err(Stop::usage(format!("process {pid} does not listen: {HOW}"))),
        (0, None) => Err(Stop::usage(format!("no process of yours listens: {HOW}"))),
        _ => Err(Stop::usage(format!(
            "several processes listen; put the number of one in front of the command:\n{}",
            lines(&found)
        ))),
    }
}

/// What `graphpatch live` without a subcommand does: it lists the processes.
pub fn list(pid: Option<u32>, as_json: bool) -> Result<u8, Stop> {
    let found = all(pid)?;
    if as_json {
        let all: Vec<_> = found.iter().map(|connection| &connection.process).collect();
        print(&json(&all)?)?;
    } else if found.is_empty() {
        say(format!("no process of yours listens: {HOW}"));
    } else {
        print(&lines(&found))?;
    }
    Ok(0)
}

fn lines(found: &[Connection]) -> String {
    let line = |connection: &Connection| {
        let process = &connection.process;
        let rank = process
            .rank
            .as_ref()
            .map_or(String::new(), |rank| format!("rank {rank}  "));
        let command = process.command.join(" ");
        format!(
            "{:>8}  {rank}{} runs  {}\n",
            process.pid,
            process.runs,
            plain_line(&command)
        )
    };
    found.iter().map(line).collect()
}
