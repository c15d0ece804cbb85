//! The thread: it waits for clients and for their lines.

use std::io::Write;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::client::Client;
use super::quiet;
use super::requests::Serving;
use super::served::{change, done, ending};
use super::socket::{self, Own};
use graphpatch_core::error::{Error, Result};

/// The most clients at a time. A program that opens more connections has most likely a bug.
const MOST_CLIENTS: usize = 32;
/// How often, in milliseconds, the thread looks whether all other threads have ended.
const PATIENCE: libc::c_int = 1000;

/// Starts the thread.
///
/// # Errors
///
/// [`Error::State`] when there can be no thread.
pub fn spawn(listener: Own<UnixListener>, serving: Serving, number: u64) -> Result<()> {
    quiet::spawn(move || serve(listener, serving, number))
        .map_err(|why| Error::State(format!("no thread for live control: {why}")))
}

fn serve(mut listener: Own<UnixListener>, mut serving: Serving, number: u64) {
    let mut clients: Vec<Client> = Vec::new();
    while !serving.is_stopped() {
        let mut waiting = vec![poll_for(listener.id.descriptor, libc::POLLIN)];
        waiting.extend(
            clients
                .iter()
                .map(|client| poll_for(client.id().descriptor, client.wants())),
        );
        // SAFETY: the list is a local of that length.
        let ready = unsafe {
            libc::poll(
                waiting.as_mut_ptr(),
                waiting.len() as libc::nfds_t,
                PATIENCE,
            )
        };
        let seen = |at: usize| waiting.get(at).map_or(0, |poll| poll.revents);
        let is_closed = seen(0) & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0;
        if is_closed || !listener.id.is_ours() || (serving.may_open() && is_alone()) {
            break;
        }
        if ready <= 0 {
            continue;
        }
        for (at, client) in clients.iter_mut().enumerate() {
            if seen(at + 1) != 0 {
                client.go_on(&mut serving);
            }
        }
        let_go(&mut clients, &mut serving, number, Client::is_gone);
        if seen(0) & libc::POLLIN != 0 {
            accept(&mut listener, &mut clients, number);
        }
    }
    ending(number);
    // A client that has asked for the end gets its answer.
    for client in &mut clients {
        client.finish();
    }
    let_go(&mut clients, &mut serving, number, |_| true);
    serving.take_all_away();
    done(number, || drop(listener));
}

fn poll_for(fd: libc::c_int, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// Accepts the next client, if its process runs as this user or as root.
fn accept(listener: &mut Own<UnixListener>, clients: &mut Vec<Client>, number: u64) {
    change(number, |open| {
        let Some(Ok((mut stream, _))) = listener.get().map(|listener| listener.accept()) else {
            return;
        };
        if !socket::is_users(&stream) {
            return;
        }
        if clients.len() >= MOST_CLIENTS {
            let answer = json!({"ok": false, "error": format!("it has {MOST_CLIENTS} clients already: close one of them")});
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
            return;
        }
        if let Ok(client) = Client::new(stream) {
            open.push(client.id());
            clients.push(client);
        }
    });
}

/// Closes the sockets of the clients that `which` names, and ends what they asked for.
fn let_go(
    clients: &mut Vec<Client>,
    serving: &mut Serving,
    number: u64,
    which: impl Fn(&Client) -> bool,
) {
    let (gone, left): (Vec<_>, Vec<_>) = clients.drain(..).partition(|client| which(client));
    *clients = left;
    for client in gone {
        let id = client.id();
        let held = client.held();
        change(number, |open| {
            open.retain(|one| *one != id);
            drop(client);
        });
        serving.release(held);
    }
}

/// Whether the program's first thread has ended by `pthread_exit` and no other is left but this one: then the process would
/// stay for us alone.
fn is_alone() -> bool {
    let pid = std::process::id();
    let Ok(first) = std::fs::read_to_string(format!("/proc/self/task/{pid}/stat")) else {
        return false;
    };
    let state = first.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with('Z')
        && std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 2)
}
