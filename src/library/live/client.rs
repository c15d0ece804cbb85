//! One client: the lines that it sends, the answers that it has not read yet, and the patches and recording that end when
//! the client disconnects.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::requests::{Held, Serving};
use super::socket::{Own, SocketId};
use graphpatch_protocol::live::LONGEST;

/// One client.
pub struct Client {
    stream: Own<UnixStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    held: Held,
    /// The client has closed its end, or the connection has failed.
    gone: bool,
    /// The client sent a line that is too long. It gets an answer that says so, and is then disconnected.
    last: bool,
}

impl Client {
    pub fn new(stream: UnixStream) -> std::io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream: Own::new(stream)?,
            input: Vec::new(),
            output: Vec::new(),
            held: Held::default(),
            gone: false,
            last: false,
        })
    }

    pub fn id(&self) -> SocketId {
        self.stream.id
    }

    /// The event to poll for. A client may send more only once it has read its answers.
    pub fn wants(&self) -> libc::c_short {
        match self.output.is_empty() {
            true => libc::POLLIN,
            false => libc::POLLOUT,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone || (self.last && self.output.is_empty())
    }

    /// What ends when the client disconnects.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Reads what is there, answers whole lines, and writes what can be written.
    pub fn go_on(&mut self, serving: &mut Serving) {
        if self.output.is_empty() {
            self.read();
            self.answer(serving);
        }
        self.write();
        // Further lines may have come together with the first one.
        while self.output.is_empty() && !self.is_gone() && self.answer(serving) {
            self.write();
        }
    }

    fn read(&mut self) {
        let mut piece = [0; 1 << 16];
        let Some(stream) = self.stream.get() else {
            self.gone = true;
            return;
        };
        match stream.read(&mut piece) {
            Ok(0) => self.gone = true,
            Ok(count) => self
                .input
                .extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(why) => self.gone |= !is_later(&why),
        }
    }

    /// Answers the first line of the input; false if no whole line is there.
    fn answer(&mut self, serving: &mut Serving) -> bool {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() > LONGEST && !self.last {
                self.last = true;
                self.output = serving.refuse(&format!("a line has more than {LONGEST} bytes"));
            }
            return false;
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        self.output = serving.answer(&line, &mut self.held);
        true
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            let Some(stream) = self.stream.get() else {
                self.gone = true;
                return;
            };
            match stream.write(&self.output) {
                Ok(count) if count > 0 => drop(self.output.drain(..count)),
                Err(why) if is_later(&why) => return,
                _ => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Writes what is left, for a second at most.
    pub fn finish(&mut self) {
        if let Some(stream) = self.stream.get() {
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = stream.write_all(&self.output);
        }
    }
}

fn is_later(why: &std::io::Error) -> bool {
    matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
