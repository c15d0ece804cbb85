//! `graphpatch live` on a terminal, without a command: the process's tree, its patches with their counts, and watched values, as
//! they are now.
//!
//! | file | owns |
//! |---|---|
//! | `mod` | the terminal: it is as it was when this ends, in whatever way |
//! | `contents` | what is shown: asked of the process again and again |
//! | `tree` | the lines of the tree: which are folded, and where one with a text stands |
//! | `keys` | what each key does |
//! | `draw` | the contents as characters |

mod contents;
mod draw;
mod keys;
mod tree;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyEventKind, poll, read};

use super::connection::Connection;
use crate::launch::process::Signals;
use crate::voice::Stop;
use contents::Contents;

/// How often the process is asked.
const PAUSE: Duration = Duration::from_millis(150);
const ENDS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGHUP];

/// Whether somebody has asked this command to end.
static ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ENDING.store(true, Ordering::Relaxed);
}

/// Shows the process until `q`.
pub fn show(connection: Connection) -> Result<u8, Stop> {
    let mut contents = Contents::of(connection)?;
    let _signals = Signals::catch(&ENDS, end);
    // A panic restores the terminal, too.
    let failed = |why: std::io::Error| Stop {
        message: format!("the terminal: {why}"),
        code: 1,
    };
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let done = (|| {
        while !ENDING.load(Ordering::Relaxed) {
            contents.refresh()?;
            terminal
                .draw(|frame| draw::draw(&mut contents, frame))
                .map_err(failed)?;
            if !poll(PAUSE).or_else(interrupted).map_err(failed)? {
                continue;
            }
            if let Event::Key(key) = read().map_err(failed)?
                && key.kind == KeyEventKind::Press
                && keys::press(&mut contents, key)?.is_break()
            {
                break;
            }
        }
        Ok(0)
    })();
    ratatui::restore();
    done
}

/// A signal that came while we waited is no failure.
fn interrupted(why: std::io::Error) -> std::io::Result<bool> {
    match why.kind() {
        std::io::ErrorKind::Interrupted => Ok(false),
        _ => Err(why),
    }
}
