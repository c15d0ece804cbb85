//! The line to one process: a request goes out, its answer comes in.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use graphpatch_core::error::Error;
use graphpatch_protocol::live::{Hello, PROTOCOL, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::voice::Stop;

/// A process that listens.
pub struct Connection {
    lines: BufReader<UnixStream>,
    /// The text of the last answer. `--json` prints it, so that numbers keep all their digits.
    pub said: String,
    pub process: Hello,
}

impl Connection {
    /// Connects to a socket. `None` if no process listens there any more.
    pub fn open(socket: &Path) -> Option<Result<Connection, Stop>> {
        let stream = UnixStream::connect(socket).ok()?;
        let mut connection = Connection {
            lines: BufReader::new(stream),
            said: String::new(),
            process: Hello {
                protocol: PROTOCOL,
                pid: 0,
                command: Vec::new(),
                rank: None,
                runs: 0,
                recording: false,
            },
        };
        let hello = connection.ask(&Request::Hello {}).and_then(read);
        Some(hello.and_then(|process: Hello| {
            if process.protocol != PROTOCOL {
                return Err(Stop::usage(format!(
                    "process {} speaks version {} of live control, this command version {PROTOCOL}: take both from one version of \
                     libgraphpatch",
                    process.pid, process.protocol
                )));
            }
            Ok(Connection { process, ..connection })
        }))
    }

    /// The answer, if it is not an error.
    pub fn ask(&mut self, request: &Request) -> Result<Value, Stop> {
        let mut line =
            serde_json::to_string(request).map_err(|why| Error::Internal(why.to_string()))?;
        line.push('\n');
        self.said.clear();
        let done = self.lines.get_mut().write_all(line.as_bytes());
        let done = done.and_then(|()| self.lines.read_line(&mut self.said));
        if done.is_err() || !self.said.ends_with('\n') {
            let pid = self.process.pid;
            return Err(Stop::usage(format!(
                "process {pid} has hung up: it has ended, or somebody has told it to listen no more"
            )));
        }
        let answer: Value =
            serde_json::from_str(&self.said).map_err(|why| Error::Internal(why.to_string()))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(why) => Err(Stop::usage(why)),
            None => Ok(answer),
        }
    }
}

/// Converts an answer, or a part of one, to the expected type.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Stop> {
    serde_json::from_value(answer).map_err(|why| {
        Stop::usage(format!(
            "the process's answer is not what was asked for: {why}"
        ))
    })
}
