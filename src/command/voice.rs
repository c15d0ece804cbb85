//! Results on stdout, messages on stderr after `graphpatch: `, and exit codes.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use graphpatch_core::file_error;
use graphpatch_core::plain::plain;

use crate::terminal;

/// The exit code for bad options, paths or files.
pub const USAGE: u8 = 2;

/// Why the command ends early: a message, and the exit code.
#[cfg_attr(test, derive(Debug))]
pub struct Stop {
    pub message: String,
    pub code: u8,
}

impl Stop {
    /// Bad options, paths or files.
    pub fn usage(message: impl Display) -> Stop {
        Stop {
            message: message.to_string(),
            code: USAGE,
        }
    }

    /// A file or folder that cannot be written.
    pub fn not_written(file: &Path, why: &std::io::Error) -> Stop {
        file_error::not_written(file, why).into()
    }
}

impl From<graphpatch_core::error::Error> for Stop {
    fn from(error: graphpatch_core::error::Error) -> Stop {
        Stop::usage(error)
    }
}

/// The exit code that the command ends with; its last message is said here.
pub fn finish(result: Result<u8, Stop>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(stop) => {
            if !stop.message.is_empty() {
                say(&stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

/// A message to the user.
pub fn say(message: impl Display) {
    show_on_stderr(&format!("graphpatch: {message}\n"));
}

/// Prints text on stderr. Control characters are escaped, as names in the text may contain any. A closed stderr is ignored.
pub fn show_on_stderr(text: &str) {
    let _ = std::io::stderr().write_all(plain(text).as_bytes());
}

/// Prints a result on stdout. Control characters other than those of colors are escaped, as names in the text may contain any.
/// If the reader has closed the pipe (`| head`), the command ends without a message, with the exit code of SIGPIPE.
pub fn print(text: &str) -> Result<(), Stop> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(terminal::plain_but_for_colors(text).as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Err(Stop {
            message: String::new(),
            code: 141,
        }),
        Err(why) => Err(Stop {
            message: format!("stdout: {why}"),
            code: 1,
        }),
        Ok(()) => Ok(()),
    }
}
