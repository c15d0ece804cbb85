//! What is shown: asked of the process again and again. Watched values are kept by probes that go with this connection.

use std::collections::VecDeque;
use std::path::Path;

use graphpatch_core::error::Error;
use graphpatch_core::graph::GraphFile;
use graphpatch_protocol::live::{PatchState, Request, Statistics};
use serde_json::Value;

use super::tree::Tree;
use crate::commands::live::asks;
use crate::commands::live::connection::{Connection, read};
use crate::voice::Stop;

/// How many norms of a watched value are drawn.
const HISTORY: usize = 120;

/// A value that is watched.
pub struct Watched {
    pub number: u64,
    pub path: String,
    pub statistics: Option<Statistics>,
    /// The norms of its last values.
    pub norms: VecDeque<f64>,
    /// How often the probe had been applied when it was asked last.
    applied: u64,
}

/// What a text that the user types is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Search,
    Patch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    Tree,
    Patches,
}

/// Everything on the screen.
pub struct Contents {
    connection: Connection,
    pub tree: Tree,
    pub patches: Vec<PatchState>,
    pub watched: Vec<Watched>,
    pub runs: u64,
    pub focus: Focus,
    pub at_patch: usize,
    /// What is being typed.
    pub entry: Option<(Entry, String)>,
    pub query: String,
    /// What the last key has led to.
    pub message: String,
    /// Runs are recorded until one has ended that began later than this many.
    records_since: Option<u64>,
}

impl Contents {
    /// Asks the process to record its next run, since there may be no tree yet.
    pub fn of(connection: Connection) -> Result<Contents, Stop> {
        let mut contents = Contents {
            connection,
            tree: Tree::default(),
            patches: Vec::new(),
            watched: Vec::new(),
            runs: 0,
            focus: Focus::Tree,
            at_patch: 0,
            entry: None,
            query: String::new(),
            message: String::new(),
            records_since: None,
        };
        contents.refresh()?;
        contents.update_tree()?;
        if contents.tree.current().is_none() {
            contents.record()?;
        }
        Ok(contents)
    }

    pub fn title(&self) -> String {
        let process = &self.connection.process;
        format!("{}  {}", process.pid, process.command.join(" "))
    }

    /// Asks for counts and watched values, and for the tree while runs are recorded.
    pub fn refresh(&mut self) -> Result<(), Stop> {
        let answer = self.connection.ask(&Request::Counts {})?;
        let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
        self.runs = part("runs").as_u64().unwrap_or_default();
        let all: Vec<PatchState> = read(part("patches"))?;
        for watched in &mut self.watched {
            let state = all.iter().find(|state| state.number == watched.number);
            let Some(state) = state.filter(|state| state.applied != watched.applied) else {
                continue;
            };
            watched.applied = state.applied;
            let asked = self.connection.ask(&Request::Value {
                number: watched.number,
                index: None,
                elements: 0,
            });
            // It may have kept none in the runs that have ended.
            if let Ok(value) = asked {
                let statistics: Statistics =
                    read(value.get("statistics").cloned().unwrap_or_default())?;
                watched.norms.push_back(statistics.norm.unwrap_or_default());
                if watched.norms.len() > HISTORY {
                    watched.norms.pop_front();
                }
                watched.statistics = Some(statistics);
            }
        }
        let is_watched = |number: u64| self.watched.iter().any(|one| one.number == number);
        self.patches = all
            .into_iter()
            .filter(|state| !is_watched(state.number))
            .collect();
        self.at_patch = self.at_patch.min(self.patches.len().saturating_sub(1));
        if self.records_since.is_some() {
            self.update_tree()?;
        }
        Ok(())
    }

    fn update_tree(&mut self) -> Result<(), Stop> {
        let answer = self.connection.ask(&Request::Graph {})?;
        let graph = answer.get("graph").unwrap_or(&Value::Null);
        let bytes = serde_json::to_vec(graph).map_err(|why| Error::Internal(why.to_string()))?;
        let graphs = GraphFile::read(&bytes, Path::new("the process's graph"))?.graphs;
        self.tree.update(&graphs);
        let whole = self
            .records_since
            .is_some_and(|since| self.runs > since + 1);
        if whole && !graphs.is_empty() {
            self.records_since = None;
            self.message.clear();
            self.connection.ask(&Request::Recording {
                on: false,
                hold: true,
            })?;
        }
        Ok(())
    }

    /// Has the next run recorded.
    pub fn record(&mut self) -> Result<(), Stop> {
        self.connection.ask(&Request::Recording {
            on: true,
            hold: true,
        })?;
        self.records_since = Some(self.runs);
        self.message = "waiting for the next run".into();
        Ok(())
    }

    /// Asks for something on behalf of the user. A refusal becomes the message.
    fn try_to(&mut self, request: Result<Request, Stop>) -> Result<Option<Value>, Stop> {
        match request {
            Err(why) => self.message = why.message,
            Ok(request) => match self.connection.ask(&request) {
                Ok(answer) => return Ok(Some(answer)),
                // Where nobody answers any more, the next question ends the screen.
                Err(why) => self.message = why.message,
            },
        }
        Ok(None)
    }

    pub fn patch(&mut self, text: &str) -> Result<(), Stop> {
        if self.try_to(asks::add(text))?.is_some() {
            self.message = "patched, from the next run on".into();
        }
        self.refresh()
    }

    /// Switches the patch at the cursor off or on.
    pub fn switch(&mut self) -> Result<(), Stop> {
        let Some(PatchState { number, on, .. }) = self.patches.get(self.at_patch).cloned() else {
            return Ok(());
        };
        let request = match on {
            true => Request::Off { number },
            false => Request::On { number },
        };
        self.try_to(Ok(request))?;
        self.refresh()
    }

    pub fn remove(&mut self) -> Result<(), Stop> {
        if let Some(PatchState { number, .. }) = self.patches.get(self.at_patch).cloned() {
            self.try_to(Ok(Request::Remove { number }))?;
        }
        self.refresh()
    }

    /// Watches the value at the cursor, or no more.
    pub fn watch(&mut self) -> Result<(), Stop> {
        let Some(path) = self.tree.current().map(|line| line.path.clone()) else {
            return Ok(());
        };
        if let Some(at) = self.watched.iter().position(|one| one.path == path) {
            let number = self.watched.remove(at).number;
            self.try_to(Ok(Request::Remove { number }))?;
            return self.refresh();
        }
        let probe = Request::Probe {
            path: path.clone(),
            hold: true,
        };
        if let Some(answer) = self.try_to(Ok(probe))? {
            self.watched.push(Watched {
                number: read(answer.get("number").cloned().unwrap_or_default())?,
                path,
                statistics: None,
                norms: VecDeque::new(),
                applied: 0,
            });
        }
        Ok(())
    }
}
