//! What `graphpatch attach` gives the library in a process that runs already, and what comes back: each a JSON object.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use graphpatch_core::error::{Error, Result};

/// The library's function that takes the request. It is no part of the C ABI.
pub const ENTRY: &str = "graphpatch_attach_begin";

/// What that function answers when a thread of the library's has begun, and what else. A borrowed thread that nobody watches any
/// more takes the answer for the number of a system call, so each is one that no kernel knows.
pub const DONE: u64 = 0x7fff_fff0;
pub const FAILED: u64 = DONE + 1;

/// The request. The process's own environment is not asked: another user or shell may have made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The folder for the socket of live control.
    pub sockets: PathBuf,
    /// The adapter for the process's libtorch.
    pub adapter: PathBuf,
    /// The library itself, as Python's package is to open it.
    pub library: PathBuf,
    /// The Python file by which calls of modules become known, in a process with Python.
    pub python: Option<PathBuf>,
    /// The file that takes the answer. It appears when the answer is whole.
    pub answer: PathBuf,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Why the process does not listen.
    pub error: Option<String>,
    /// Why calls of modules in Python are not seen.
    pub python: Option<String>,
    /// Whether something tells where runs begin: Python, TorchScript, or calls of the C ABI.
    pub tells_of_runs: bool,
}

impl Attached {
    /// Writes the file; nobody sees a part of it.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn save(&self, file: &Path) -> Result<()> {
        let fail = |why: std::io::Error| Error::File {
            file: file.into(),
            why: why.to_string(),
        };
        let text = serde_json::to_vec(self).map_err(|why| Error::Internal(why.to_string()))?;
        let part = file.with_extension("part");
        match std::fs::write(&part, &text) {
            Ok(()) => std::fs::rename(&part, file).map_err(fail),
            // A process that may write no file (`ulimit -f 0`) may still make a link: the text is where it leads.
            Err(_) => std::os::unix::fs::symlink(OsStr::from_bytes(&text), file).map_err(fail),
        }
    }

    /// Reads the file; none while it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Format`].
    pub fn load(file: &Path) -> Result<Option<Attached>> {
        let text = match std::fs::read_link(file) {
            Ok(target) => target.into_os_string().into_vec(),
            Err(_) => match std::fs::read(file) {
                Ok(text) => text,
                Err(_) => return Ok(None),
            },
        };
        Attached::read(&text, file).map(Some)
    }

    /// Reads the text of `file`.
    ///
    /// # Errors
    ///
    /// [`Error::Format`].
    pub fn read(text: &[u8], file: &Path) -> Result<Attached> {
        serde_json::from_slice(text).map_err(|why| Error::Format {
            file: file.into(),
            place: format!("line {} column {}", why.line(), why.column()),
            why: why.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_whole() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("answer.json");
        assert_eq!(Attached::load(&file).expect("none"), None);
        let answer = Attached {
            python: Some("no module".into()),
            tells_of_runs: true,
            ..Attached::default()
        };
        answer.save(&file).expect("saved");
        assert_eq!(Attached::load(&file).expect("there"), Some(answer));
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 1);
        std::fs::write(&file, "{").expect("write");
        assert!(Attached::load(&file).is_err());
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink(
            "{\"error\":\"why\",\"python\":null,\"tells_of_runs\":false}",
            &file,
        )
        .expect("a link");
        let answer = Attached::load(&file).expect("read").expect("there");
        assert_eq!(answer.error.as_deref(), Some("why"));
    }
}
