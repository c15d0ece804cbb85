//! The machine's C++ compiler: which one, and what it can do.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Libtorch, environment, limited};
use graphpatch_core::error::{Error, Result};

/// A C++ compiler and the arguments that `$CXX` gives it (`ccache g++`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program, found in `PATH`.
    pub program: PathBuf,
    /// Arguments that come first.
    pub arguments: Vec<String>,
}

/// `$CXX`, or the first of `c++`, `g++`, `clang++` in `PATH`.
pub fn compiler() -> Result<Compiler> {
    choose_compiler(environment::text("CXX").as_deref(), |name| {
        super::find_in_path(OsStr::new(name))
    })
}

fn choose_compiler(cxx: Option<&str>, find: impl Fn(&str) -> Option<PathBuf>) -> Result<Compiler> {
    let named = cxx.map(str::trim).filter(|text| !text.is_empty());
    let lines: Vec<&str> = named.into_iter().chain(["c++", "g++", "clang++"]).collect();
    for line in &lines {
        let mut words = line.split_whitespace();
        if let Some(program) = words.next().and_then(&find) {
            return Ok(Compiler {
                program,
                arguments: words.map(str::to_string).collect(),
            });
        }
    }
    Err(Error::Adapter(format!(
        "no C++ compiler to build the adapter with (tried {}): install one (g++ or clang++), or name one in CXX, or copy an \
         adapter built elsewhere by `graphpatch doctor --build --into DIR` into $GRAPHPATCH_ADAPTER_DIR",
        lines.join(", ")
    )))
}

/// The C++ standard that the newest supported libtorch needs.
pub const NEWEST_STANDARD: u32 = 20;

/// The C++ standard that the headers of `libtorch` need: `17` or `20`.
pub fn standard(libtorch: &Libtorch) -> u32 {
    // Headers from 2.15 on need C++20, 2.4's take C++17; in between both work.
    let newer = libtorch
        .version_numbers()
        .is_some_and(|version| version >= (2, 12));
    if newer { NEWEST_STANDARD } else { 17 }
}

impl Compiler {
    /// A command that runs the compiler as an ordinary process, without the library preloaded.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_remove("LD_PRELOAD");
        let ours = std::env::vars_os()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GRAPHPATCH_"));
        for (name, _) in ours {
            command.env_remove(name);
        }
        command
    }

    /// What it calls itself: the first line of `--version`.
    pub fn version(&self) -> Option<String> {
        let mut said = tempfile::tempfile().ok()?;
        let mut command = self.command();
        command
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(said.try_clone().ok()?)
            .stderr(Stdio::null());
        limited::status(&mut command, limited::limit()).ok()??;
        let text = all_of(&mut said);
        text.lines().next().map(str::to_string)
    }

    /// Whether it compiles a small program of that C++ standard with the standard library's headers.
    ///
    /// # Errors
    ///
    /// What it said.
    pub fn check(&self, standard: u32) -> Result<(), String> {
        let fail = |why: std::io::Error| why.to_string();
        let mut program = tempfile::tempfile().map_err(fail)?;
        program
            .write_all(b"#include <string>\nstd::string text;\n")
            .and_then(|()| program.rewind())
            .map_err(fail)?;
        let mut said = tempfile::tempfile().map_err(fail)?;
        let mut command = self.command();
        command
            .arg(format!("-std=c++{standard}"))
            .args(["-fsyntax-only", "-x", "c++", "-"])
            .stdin(program)
            .stdout(Stdio::null())
            .stderr(said.try_clone().map_err(fail)?);
        match limited::status(&mut command, limited::limit()) {
            Err(why) => return Err(format!("it does not start: {why}")),
            Ok(None) => return Err("it does not end".into()),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(_)) => (),
        }
        let said = all_of(&mut said);
        let line = said.lines().find(|line| line.contains("error"));
        Err(line
            .or(said.lines().next())
            .unwrap_or("it failed")
            .to_string())
    }
}

/// What was written into a file.
fn all_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read counts as empty.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::libtorch::tests::libtorch;
    use super::*;
    use std::path::Path;

    #[test]
    fn compilers_are_tried_in_order() {
        let only = |have: &'static str| {
            move |name: &str| (name == have).then(|| PathBuf::from("/bin").join(name))
        };
        let found = choose_compiler(Some("ccache g++-12"), only("ccache")).expect("ccache");
        assert_eq!(
            found,
            Compiler {
                program: "/bin/ccache".into(),
                arguments: vec!["g++-12".into()]
            }
        );
        assert_eq!(
            choose_compiler(Some(" "), only("clang++"))
                .expect("clang")
                .program,
            Path::new("/bin/clang++")
        );
        let text = choose_compiler(Some("icpx"), |_| None)
            .expect_err("none")
            .to_string();
        assert!(
            text.contains("tried icpx, c++, g++, clang++") && text.contains("doctor --build"),
            "{text}"
        );
    }

    #[test]
    fn standards() {
        assert_eq!(standard(&libtorch("2.4.1")), 17);
        assert_eq!(standard(&libtorch("2.15.0")), 20);
        assert_eq!(standard(&libtorch("unknown")), 17);
    }

    #[test]
    fn a_real_compiler_and_none() {
        let real = compiler().expect("a C++ compiler");
        assert!(real.version().is_some_and(|line| !line.is_empty()));
        assert_eq!((real.check(17), real.check(20)), (Ok(()), Ok(())));
        let why = real.check(3).expect_err("no such standard");
        assert!(why.contains("c++3"), "{why}");
        let none = Compiler {
            program: "/no/such/compiler".into(),
            arguments: Vec::new(),
        };
        assert!(none.version().is_none() && none.check(17).is_err());
    }
}
