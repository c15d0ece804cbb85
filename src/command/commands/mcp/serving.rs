//! Requests in, answers out. Calls of tools run on threads of their own, so that others, and what takes them back, are read
//! meanwhile.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::message::{self, Code, LONGEST, Message};
use super::process::{self, Ended, How};
use super::tools::{Call, Tool};
use crate::launch::failure::folded;
use crate::voice::Stop;

/// The versions of the protocol that begin with `initialize`, the newest last. A client that knows other ones, too, falls back
/// to these.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The most calls at a time.
const MOST_CALLS: usize = 8;

const INSTRUCTIONS: &str = "\
graphpatch names every tensor operation of a libtorch model. First `run` a program with graph=FILE to save its graph, or take a \
graph that was saved. Then look at it by `tree` (begin with a small depth), `find` and `code`; nodes are named by paths such as \
encoder.layer_0.attention.self.softmax. `check` says whether patches fit before `run` applies them. Files are named relative to \
the folder that this server was started in.";

struct Server<'a> {
    program: &'a Path,
    tools: &'a [&'static Tool],
    /// By the text of their requests' ids.
    calls: Mutex<HashMap<String, UnderWay>>,
    out: Mutex<io::Stdout>,
}

/// A call that has not been answered yet.
struct UnderWay {
    /// Ends the call when something is sent, or when it is dropped.
    end: Sender<()>,
    reads: bool,
}

/// Serves until the client closes stdin. Then programs end; what only reads files is still answered.
pub fn serve(program: &Path, tools: &[&'static Tool]) -> Result<u8, Stop> {
    let server = Server {
        program,
        tools,
        calls: Mutex::default(),
        out: Mutex::new(io::stdout()),
    };
    thread::scope(|scope| {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        let result = loop {
            line.clear();
            match stdin.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) => break Ok(0),
                Err(why) => break Err(Stop::usage(format!("stdin: {why}"))),
                Ok(_) if line.len() as u64 == LONGEST => {
                    break Err(Stop::usage(format!(
                        "a message has more than {LONGEST} bytes"
                    )));
                }
                Ok(_) if line.trim_ascii().is_empty() => continue,
                Ok(_) => {}
            }
            match message::read(&line) {
                Ok(Message::Request { id, method, params }) => match &*method {
                    "tools/call" => {
                        if let Some((call, cancelled)) = server.begin(&id, params) {
                            let server = &server;
                            scope.spawn(move || server.call(&id, &call, &cancelled));
                        }
                    }
                    _ => server.say(&server.answer(&id, &method, &params)),
                },
                Ok(Message::Notification { method, params }) => server.told(&method, &params),
                Ok(Message::Answer) => {}
                Err(answer) => server.say(&answer),
            }
        };
        server.calls.lock().retain(|_, call| call.reads);
        result
    })
}

impl Server<'_> {
    /// Writes a message. A client that reads no more will close stdin, too.
    fn say(&self, message: &Value) {
        let mut out = self.out.lock();
        let _ = writeln!(out, "{message}").and_then(|()| out.flush());
    }

    fn answer(&self, id: &Value, method: &str, params: &Value) -> Value {
        match method {
            "initialize" => message::answer(id, initialize(params)),
            "ping" => message::answer(id, json!({})),
            "tools/list" => {
                let tools: Vec<Value> = self.tools.iter().map(|tool| tool.description()).collect();
                message::answer(id, json!({"tools": tools}))
            }
            _ => message::error(id, Code::Method, &format!("no method {method}")),
        }
    }

    fn told(&self, method: &str, params: &Value) {
        if method == "notifications/cancelled"
            && let Some(id) = params.get("requestId")
            && let Some(call) = self.calls.lock().remove(&id.to_string())
        {
            // A call that has just ended needs no word.
            let _ = call.end.send(());
        }
    }

    /// Notes a call, or answers why there is none. What a model can mend is a result that says so, as the protocol asks for.
    fn begin(&self, id: &Value, params: Value) -> Option<(Call, Receiver<()>)> {
        let name = params
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(tool) = self.tools.iter().find(|tool| tool.name == name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name).collect();
            let why = format!("no tool {name:?}; there is {}", names.join(", "));
            self.say(&message::error(id, Code::Parameters, &why));
            return None;
        };
        let refuse = |why: &str| self.say(&message::answer(id, result(why, true)));
        let call = match tool.call(params.get("arguments").unwrap_or(&Value::Null)) {
            Ok(call) => call,
            Err(why) => {
                refuse(&why);
                return None;
            }
        };
        let mut calls = self.calls.lock();
        if calls.len() >= MOST_CALLS {
            refuse(&format!(
                "{MOST_CALLS} calls are under way; wait for one to end"
            ));
            return None;
        }
        let (end, cancelled) = mpsc::channel();
        let reads = tool.reads;
        calls.insert(id.to_string(), UnderWay { end, reads });
        Some((call, cancelled))
    }

    fn call(&self, id: &Value, call: &Call, cancelled: &Receiver<()>) {
        let mut command = Command::new(self.program);
        command.args(&call.arguments);
        if let Some(folder) = &call.folder {
            command.current_dir(folder);
        }
        let result = match process::call(&mut command, call.limit, cancelled) {
            Ok(ended) if ended.how == How::Cancelled => None,
            Ok(ended) => Some(of_process(call, &ended)),
            Err(why) => Some(result(&format!("the call cannot begin: {why}"), true)),
        };
        self.calls.lock().remove(&id.to_string());
        if let Some(result) = result {
            self.say(&message::answer(id, result));
        }
    }
}

fn initialize(params: &Value) -> Value {
    let wanted = params.get("protocolVersion").and_then(Value::as_str);
    let newest = VERSIONS[VERSIONS.len() - 1];
    let version = wanted
        .filter(|wanted| VERSIONS.contains(wanted))
        .unwrap_or(newest);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "graphpatch", "version": env!("CARGO_PKG_VERSION")},
        "instructions": INSTRUCTIONS,
    })
}

fn result(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// What a process has printed, and how it ended where that was not by exit code 0.
fn of_process(call: &Call, ended: &Ended) -> Value {
    let mut parts = vec![ended.stdout.trim_end().to_owned()];
    if !ended.stderr.trim().is_empty() {
        parts.push(format!("stderr:\n{}", folded(ended.stderr.trim_end())));
    }
    let code = match ended.how {
        How::By(status) => status.code(),
        How::TimedOut | How::Cancelled => None,
    };
    match (ended.how, code) {
        (How::TimedOut, _) => parts.push(format!(
            "the program was ended, since it took more than {} seconds (timeout_seconds)",
            call.limit.as_secs_f64()
        )),
        (_, None) => parts.push("the process was ended by a signal".into()),
        (_, Some(0)) => {}
        (_, Some(code)) => parts.push(format!("exit code {code}")),
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        parts.push(call.silence.into());
    }
    let fine = code.is_some_and(|code| code <= call.highest);
    result(&parts.join("\n\n"), !fine)
}
