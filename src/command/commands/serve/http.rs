//! Who gets the page: whoever on this machine knows the address, which has a secret in it.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;

use tiny_http::{Header, Method, Request, Response, Server};

use crate::voice::{Stop, say};

/// How many requests are answered at a time.
const WORKERS: usize = 4;

/// What every answer says. The page is never kept, shown inside of another one, or told of to others.
const HEADERS: [(&str, &str); 5] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
];

pub struct PageServer {
    server: Server,
    port: u16,
    token: String,
}

/// An answer: its status, its kind, its text.
struct Answer(u16, &'static str, String);

impl Answer {
    fn text(status: u16, text: impl Into<String>) -> Answer {
        Answer(status, "text/plain; charset=utf-8", text.into() + "\n")
    }
}

impl PageServer {
    /// Listens at the address; at a free port if it is 0.
    pub fn open(at: SocketAddr) -> Result<PageServer, Stop> {
        let fail = |why: &dyn std::fmt::Display| Stop::usage(format!("{at}: cannot listen: {why}"));
        let server = Server::http(at).map_err(|why| fail(&why))?;
        let ip = server.server_addr().to_ip();
        let port = ip
            .ok_or_else(|| fail(&"not an address of the internet"))?
            .port();
        let token = token().map_err(|why| fail(&why))?;
        Ok(PageServer {
            server,
            port,
            token,
        })
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/{}/", self.port, self.token)
    }

    /// Answers requests, each with a page that is made for it, as long as the command runs.
    pub fn serve(&self, page: impl Fn() -> Result<String, Stop> + Sync) -> Result<u8, Stop> {
        thread::scope(|scope| {
            let work = || {
                while let Ok(request) = self.server.recv() {
                    let answer = self.answer(&request, &page);
                    give(request, answer);
                }
            };
            for _ in 1..WORKERS {
                scope.spawn(work);
            }
            work();
        });
        Err(Stop::usage("the socket was closed"))
    }

    fn answer(&self, request: &Request, page: impl Fn() -> Result<String, Stop>) -> Answer {
        // A page of somebody else's whose name leads to this address would come with its own name.
        let host = request
            .headers()
            .iter()
            .find(|header| header.field.equiv("Host"));
        let host = host.map_or("", |host| host.value.as_str());
        if !["127.0.0.1", "localhost"]
            .iter()
            .any(|own| host == format!("{own}:{}", self.port))
        {
            return Answer::text(403, "this address is only served as 127.0.0.1 or localhost");
        }
        let path = request.url().split(['?', '#']).next().unwrap_or_default();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (token, rest) = (parts.next().unwrap_or_default(), parts.next());
        if !same(token, &self.token) {
            return Answer::text(
                403,
                "the address lacks the secret that `graphpatch serve` has printed with it",
            );
        }
        if rest != Some("") {
            return Answer::text(
                404,
                "there is only one page here; its address ends in the secret and a /",
            );
        }
        if !matches!(request.method(), Method::Get | Method::Head) {
            return Answer::text(405, "a page can only be read");
        }
        match page() {
            Ok(html) => Answer(200, "text/html; charset=utf-8", html),
            Err(stop) => {
                say(&stop.message);
                Answer::text(500, stop.message)
            }
        }
    }
}

fn give(request: Request, Answer(status, kind, text): Answer) {
    let mut response = Response::from_string(text).with_status_code(status);
    for (name, value) in HEADERS.into_iter().chain([("Content-Type", kind)]) {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    // Whoever has asked may have gone.
    let _ = request.respond(response);
}

/// 128 bits that nobody guesses, as hexadecimal digits.
fn token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Whether the texts are equal, in a time that does not depend on where they differ.
fn same(given: &str, own: &str) -> bool {
    let differ = |all: u8, (a, b): (u8, u8)| all | (a ^ b);
    given.len() == own.len() && given.bytes().zip(own.bytes()).fold(0, differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_are_compared_whole() {
        let (a, b) = (token().expect("random"), token().expect("random"));
        assert!(a.len() == 32 && a != b && same(&a, &a) && !same(&a, &b));
        assert!(!same(&a[..31], &a) && !same("", &a));
    }
}
