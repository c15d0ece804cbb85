//! What each request does with the session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::changes;
use super::served::detached;
use crate::filter::Filter;
use graphpatch_core::error::{Error, Result};
use graphpatch_core::graph::{self, GraphFile, TreeStyle};
use graphpatch_core::patch::{Kind, PatchSpec, Value as PatchValue};
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::{HostTensor, safetensors};
use graphpatch_protocol::live::{Hello, PROTOCOL, PatchState, Request, RootTree, Statistics};
use graphpatch_session::{Session, keyed};
use serde_json::{Value, json};

/// What ends when a client disconnects: its patches, and whether it asked for recording.
#[derive(Clone, Default)]
pub struct Held {
    patches: Vec<u64>,
    recording: bool,
}

/// The session, and the patches and recording that clients have asked for.
pub struct Serving {
    session: Arc<Session>,
    added: Vec<u64>,
    /// Whether the session recorded before. The next two: how many clients want recording while they are connected, and
    /// whether one wants it for good.
    recorded: bool,
    holders: usize,
    recording: bool,
    stopped: bool,
    filter: Filter,
    /// The file of [`changes`].
    changes: PathBuf,
    /// The words of the program's command line, with a zero after each.
    command: Vec<u8>,
}

impl Serving {
    /// The thread that answers opens no file later unless it is asked for one.
    pub fn new(session: Arc<Session>, filter: Filter, changes: PathBuf) -> Serving {
        Serving {
            filter,
            changes,
            command: std::fs::read("/proc/self/cmdline").unwrap_or_default(),
            recorded: session.is_recording(),
            session,
            added: Vec::new(),
            holders: 0,
            recording: false,
            stopped: false,
        }
    }

    /// Whether a file may be opened: a filter of system calls that the program has given itself meanwhile may punish that by death.
    pub fn may_open(&self) -> bool {
        !self.filter.is_closed()
    }

    fn check_opening(&self, what: &str) -> Result<()> {
        match self.may_open() {
            true => Ok(()),
            false => Err(Error::Refused(format!(
                "{what}: the program limits its own system calls (seccomp), and opening a file might end it"
            ))),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The answer to one line, with its end.
    pub fn answer(&mut self, line: &[u8], held: &mut Held) -> Vec<u8> {
        let (id, request) = match read(line) {
            Ok(read) => read,
            Err(why) => return self.refuse(&why),
        };
        let done = match request {
            Ok(request) => {
                let body = AssertUnwindSafe(|| self.act(request, held));
                let panicked = |_| Err(Error::Internal("a panic; please report it".into()));
                catch_unwind(body).unwrap_or_else(panicked)
            }
            Err(why) => Err(why),
        };
        let mut answer = match done {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => serde_json::Map::new(),
            Err(why) => [("error".to_owned(), Value::from(why.to_string()))]
                .into_iter()
                .collect(),
        };
        answer.insert("ok".into(), Value::from(!answer.contains_key("error")));
        answer.extend(id.map(|id| ("id".to_owned(), id)));
        line_of(&Value::Object(answer))
    }

    /// The answer to a line that is not a request.
    pub fn refuse(&self, why: &str) -> Vec<u8> {
        line_of(&json!({"ok": false, "error": why}))
    }

    fn act(&mut self, request: Request, held: &mut Held) -> Result<Value> {
        let session = &self.session;
        match request {
            Request::Hello {} => self.hello(),
            Request::Tree { path, depth } => self.tree(path.as_deref(), depth),
            Request::Graph {} => {
                whole(GraphFile::new(session.graphs())).map(|it| json!({"graph": it}))
            }
            Request::Patch { patch, hold } => self.add(patch.parse()?, hold, held),
            Request::Probe { path, hold } => self.add(keeping(&path, Kind::Probe)?, hold, held),
            Request::Record { path, limit, hold } => {
                self.add(keeping(&path, Kind::Record { limit })?, hold, held)
            }
            Request::Recording { on, hold } => Ok(self.record(on, hold, held)),
            Request::Off { number } => self.switch(number, false),
            Request::On { number } => self.switch(number, true),
            Request::Remove { number } => self.remove(number).map(|()| json!({})),
            Request::Value {
                number,
                index,
                elements,
            } => self.value(number, index, elements),
            Request::Counts {} => self.counts(),
            Request::Notes {} => Ok(json!({"notes": session.notes()})),
            Request::Save { file } => {
                self.check_opening("nothing is saved")?;
                let kept = keyed(&session.kept());
                if !kept.unsaved.is_empty() {
                    return Err(Error::Refused(kept.unsaved.join("; ")));
                }
                safetensors::save(&file, &kept.tensors)?;
                Ok(json!({"values": kept.tensors.len(), "file": file}))
            }
            Request::Stop {} => {
                self.take_all_away();
                self.stopped = true;
                Ok(json!({}))
            }
            Request::Detach {} => self.detach(),
        }
    }

    fn detach(&mut self) -> Result<Value> {
        if !self.session.is_for_command() {
            return Err(Error::State(
                "the program has attached this session itself: `stop` takes away what came by the socket".into(),
            ));
        }
        self.take_all_away();
        graphpatch_torch::detach(&self.session);
        self.stopped = true;
        detached(self.filter);
        Ok(json!({}))
    }

    fn hello(&self) -> Result<Value> {
        let words = self
            .command
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty());
        whole(Hello {
            protocol: PROTOCOL,
            pid: std::process::id(),
            command: words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            rank: std::env::var("RANK").ok().filter(|rank| !rank.is_empty()),
            runs: self.session.runs(),
            recording: self.session.is_recording(),
        })
    }

    fn tree(&self, path: Option<&str>, depth: Option<usize>) -> Result<Value> {
        let path: NodePath = path.map_or_else(|| Ok(NodePath::root()), str::parse)?;
        let style = TreeStyle {
            depth,
            ..TreeStyle::default()
        };
        let (mut roots, mut failed) = (Vec::new(), None);
        let graphs = self.session.graphs();
        for graph in graph::of_root(&graphs, &path)? {
            match graph.styled_tree(&path, style) {
                Ok(tree) => roots.push(RootTree {
                    name: graph.name.clone(),
                    tree,
                }),
                Err(why) => failed = Some(why),
            }
        }
        // A path need not be in every root.
        match failed {
            Some(why) if roots.is_empty() => Err(why),
            _ => Ok(json!({"roots": roots})),
        }
    }

    fn add(&mut self, spec: PatchSpec, hold: bool, held: &mut Held) -> Result<Value> {
        if let Kind::Add(PatchValue::File(_)) | Kind::Replace(PatchValue::File(_)) = &spec.kind {
            self.check_opening("no patch is added")?;
        }
        let note = self.session.shared(&spec.path);
        let number = self.session.add_patch(spec)?;
        self.added.push(number);
        self.changed(self.changes_values(number));
        if hold {
            held.patches.push(number);
        }
        Ok(match note {
            Some(note) => json!({"number": number, "note": note}),
            None => json!({"number": number}),
        })
    }

    fn switch(&self, number: u64, on: bool) -> Result<Value> {
        self.session.enable_patch(number, on)?;
        self.changed(self.changes_values(number));
        Ok(json!({}))
    }

    fn remove(&self, number: u64) -> Result<()> {
        let changes = self.changes_values(number);
        self.session.remove_patch(number)?;
        self.changed(changes);
        Ok(())
    }

    /// Whether the patch does more than look.
    fn changes_values(&self, number: u64) -> bool {
        self.session.kept_of(number).is_none()
    }

    /// To be called when patches that change values have come, gone or been switched.
    fn changed(&self, is_true: bool) {
        if is_true && self.may_open() {
            changes::tell(&self.changes);
        }
    }

    fn record(&mut self, on: bool, hold: bool, held: &mut Held) -> Value {
        match hold {
            true if on != held.recording => {
                held.recording = on;
                self.holders = if on {
                    self.holders + 1
                } else {
                    self.holders - 1
                };
            }
            true => {}
            false => (self.recording, self.recorded) = (on, self.recorded && on),
        }
        self.set_recording();
        json!({"recording": self.session.is_recording()})
    }

    fn set_recording(&self) {
        let on = self.recorded || self.recording || self.holders > 0;
        self.session.set_recording(on);
    }

    fn value(&self, number: u64, index: Option<u64>, elements: usize) -> Result<Value> {
        let kept = self.session.kept_of(number).ok_or_else(|| {
            Error::State(format!(
                "patch number {number} is no probe or record, or is gone"
            ))
        })?;
        let count = kept.len();
        let index = index.map_or(count.checked_sub(1), |index| usize::try_from(index).ok());
        let Some(value) = index.and_then(|index| kept.value(index)) else {
            return Err(Error::State(match count {
                0 => format!("number {number} has kept no value yet: no run has come by its node"),
                _ => format!("number {number} has kept {count} values; the first one has index 0"),
            }));
        };
        let value = value?;
        let numbers = value.numbers();
        let first: Vec<Value> = numbers
            .iter()
            .take(elements)
            .map(|number| element(*number))
            .collect();
        Ok(json!({
            "kept": count, "dropped": kept.dropped(), "index": index, "dtype": value.dtype().name(),
            "shape": HostTensor::shape(&value), "statistics": Statistics::of(&numbers), "elements": first,
        }))
    }

    fn counts(&self) -> Result<Value> {
        let off = self.session.switched_off();
        let states: Vec<PatchState> = self
            .session
            .patch_counts()
            .into_iter()
            .map(|patch| {
                let kept = self.session.kept_of(patch.id);
                PatchState {
                    number: patch.id,
                    text: patch.text,
                    on: !off.contains(&patch.id),
                    matched: patch.matched,
                    applied: patch.applied,
                    failed: patch.failed,
                    last_error: patch.last_error,
                    kept: kept.as_ref().map(|kept| kept.len() as u64),
                    dropped: kept.as_ref().map(|kept| kept.dropped()),
                }
            })
            .collect();
        Ok(json!({"runs": self.session.runs(), "patches": whole(states)?}))
    }

    /// Ends what a client that has disconnected asked for.
    pub fn release(&mut self, held: Held) {
        for number in held.patches {
            // The client may have removed it itself.
            let _ = self.remove(number);
        }
        if held.recording {
            self.holders -= 1;
            self.set_recording();
        }
    }

    /// Removes all that came by the socket, so that the program goes on as it was before.
    pub fn take_all_away(&mut self) {
        for number in std::mem::take(&mut self.added) {
            let _ = self.remove(number);
        }
        (self.recording, self.holders) = (false, 0);
        self.set_recording();
    }
}

/// Reads a line: its `id`, by which the client finds the answer that belongs to it, and its request.
fn read(line: &[u8]) -> Result<(Option<Value>, Result<Request>), String> {
    let mut value: Value = serde_json::from_slice(line).map_err(|why| format!("no JSON: {why}"))?;
    let fields = value
        .as_object_mut()
        .ok_or("a request is one JSON object on a line")?;
    let id = fields.remove("id");
    let request = serde_json::from_value(value);
    Ok((
        id,
        request.map_err(|why| Error::State(format!("no request that is known: {why}"))),
    ))
}

fn keeping(path: &str, kind: Kind) -> Result<PatchSpec> {
    Ok(PatchSpec::whole(path.parse()?, kind))
}

fn whole(what: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(what).map_err(|why| Error::Internal(why.to_string()))
}

fn line_of(answer: &Value) -> Vec<u8> {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// JSON knows finite numbers only.
fn element(number: f64) -> Value {
    match number.is_finite() {
        true => Value::from(number),
        false => Value::from(number.to_string().to_lowercase()),
    }
}
