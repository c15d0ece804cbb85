//! What the loader tells the person at the terminal while it works: building an adapter takes half a minute.

use std::io::Write;

use graphpatch_core::plain::plain;

/// One line for the person at the terminal; a closed stderr is no error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "graphpatch: {}", plain(text));
}
