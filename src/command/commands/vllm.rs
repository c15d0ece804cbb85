//! Which processes of a vLLM server are meant: the server takes requests, the engine puts batches together and has the prefix
//! cache, and the workers run the model. A small server's engine runs the model itself. vLLM names all but the server.

use graphpatch_attach::family::{Relative, below, parent, title};

const ENGINE: &str = "::EngineCore";
const WORKER: &str = "::Worker";

/// What a process is in a server.
pub enum Part {
    /// The model runs there.
    Model {
        /// The engine, if it is another process.
        engine: Option<u32>,
    },
    /// The model runs in these. The process is vLLM's own, else a program that has started a server or an engine.
    Other {
        found: Vec<Relative>,
        is_vllms: bool,
    },
}

/// What this process is; `None` where it belongs to no vLLM server.
pub fn part(pid: u32) -> Option<Part> {
    let own = title(pid);
    if own.contains(WORKER) {
        let engine = parent(pid).filter(|engine| title(*engine).contains(ENGINE));
        return Some(Part::Model { engine });
    }
    let below = below(pid);
    let titled = |what: &str| -> Vec<Relative> {
        let fitting = below.iter().filter(|one| one.title.contains(what));
        fitting.cloned().collect()
    };
    let workers = titled(WORKER);
    if own.contains(ENGINE) && workers.is_empty() {
        return Some(Part::Model { engine: None });
    }
    let found = match workers.is_empty() {
        true => titled(ENGINE),
        false => workers,
    };
    (!found.is_empty()).then(|| Part::Other {
        found,
        is_vllms: own.contains(ENGINE) || is_server(pid),
    })
}

/// Whether the command line is that of vLLM's own program: `vllm serve`, `python -m vllm.entrypoints…`.
fn is_server(pid: u32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    words.any(|word| {
        word == b"vllm" || word.ends_with(b"/vllm") || word.starts_with(b"vllm.entrypoints")
    })
}

/// The processes as a part of a sentence, and the command for them.
pub fn listed(found: &[Relative]) -> String {
    let named: Vec<String> = found
        .iter()
        .map(|one| format!("{} ({})", one.pid, one.title))
        .collect();
    let commands: Vec<String> = found
        .iter()
        .map(|one| format!("`graphpatch attach {}`", one.pid))
        .collect();
    let (noun, and) = match found.len() {
        1 => ("process", ""),
        _ => ("processes", ", each by its own number"),
    };
    format!("{noun} {}: {}{and}", named.join(", "), commands.join(", "))
}
