//! The line to one process: a request goes out, its answer comes in.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

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
    /// Asks the process at the other end who it is. `None` if it is about to listen no more: its socket still accepts clients, but it hangs up.
    pub fn open(stream: UnixStream) -> Option<Result<Connection, Stop>> {
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
        match connection.exchange(&Request::Hello {}) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => return Some(Err(why)),
        }
        let hello = connection.answer().and_then(read);
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
        if !self.exchange(request)? {
            let pid = self.process.pid;
            return Err(Stop::usage(format!(
                "process {pid} has hung up: it has ended, or somebody has told it to listen no more"
            )));
        }
        self.answer()
    }

    /// Sends a request and keeps the answer's line. False if the process has hung up.
    fn exchange(&mut self, request: &Request) -> Result<bool, Stop> {
        let mut line =
            serde_json::to_string(request).map_err(|why| Error::Internal(why.to_string()))?;
        line.push('\n');
        self.said.clear();
        // A process that has hung up may have said why before.
        let _ = self.lines.get_mut().write_all(line.as_bytes());
        let read = self.lines.read_line(&mut self.said);
        Ok(read.is_ok() && self.said.ends_with('\n'))
    }

    /// The line that was kept, as JSON.
    fn answer(&self) -> Result<Value, Stop> {
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
