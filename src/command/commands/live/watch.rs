//! The statistics of a value, again for each new value, by a probe that exists as long as this command is connected.

use std::time::Duration;

use graphpatch_protocol::live::{PatchState, Request};

use super::asks::{self, statistics};
use super::connection::{Connection, read};
use crate::voice::{Stop, print};

/// How long to wait before asking again. Runs of a fast model in between are not shown.
const PAUSE: Duration = Duration::from_millis(50);

/// Prints a line whenever the value was computed anew.
pub fn watch(
    connection: &mut Connection,
    path: &str,
    times: Option<u64>,
    json: bool,
) -> Result<u8, Stop> {
    let probe = Request::Probe {
        path: path.into(),
        hold: true,
    };
    let added = connection.ask(&probe)?;
    asks::tell(&added);
    let number: u64 = read(added.get("number").cloned().unwrap_or_default())?;
    let (mut shown, mut lines) = (0, 0);
    while times.is_none_or(|times| lines < times) {
        let answer = connection.ask(&Request::Counts {})?;
        let patches: Vec<PatchState> = read(answer.get("patches").cloned().unwrap_or_default())?;
        let Some(state) = patches.into_iter().find(|patch| patch.number == number) else {
            return Err(Stop::usage(format!(
                "{path}: somebody has taken its probe, number {number}, away"
            )));
        };
        if state.applied == shown || state.kept == Some(0) {
            if let Some(why) = state.last_error {
                return Err(Stop::usage(format!("{path}: {why}")));
            }
            std::thread::sleep(PAUSE);
            continue;
        }
        shown = state.applied;
        let value = connection.ask(&Request::Value {
            number,
            index: None,
            elements: 0,
        })?;
        print(&match json {
            true => connection.said.clone(),
            false => {
                let found = read(value.get("statistics").cloned().unwrap_or_default())?;
                format!("{shown:>8}  {}\n", statistics(&found))
            }
        })?;
        lines += 1;
        std::thread::sleep(PAUSE);
    }
    Ok(0)
}
