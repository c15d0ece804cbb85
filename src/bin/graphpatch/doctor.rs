//! `graphpatch doctor`: which libtorch, which adapter, which CUDA, and what to do about a missing one.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;
use graphpatch::torch::loader::{self, AdapterState, Libtorch, build, cache};

use crate::{Stop, library, print};

/// Which libtorch, adapter and CUDA a program would use, and what is missing
#[derive(Args)]
pub struct Doctor {
    /// Build the adapter now
    #[arg(long)]
    build: bool,
    /// The program to look at; else the Python of this environment
    #[arg(last = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// What was found, line by line, and whether all is well.
struct Findings {
    text: String,
    good: bool,
}

impl Findings {
    fn fact(&mut self, what: &str, found: impl std::fmt::Display) {
        self.text += &format!("{what:<10} {found}\n");
    }

    fn missing(&mut self, what: &str, advice: impl std::fmt::Display) {
        self.good = false;
        self.fact(what, advice);
    }
}

impl Doctor {
    pub fn run(self) -> Result<u8, Stop> {
        let mut found = Findings {
            text: String::new(),
            good: true,
        };
        found.fact("graphpatch", env!("CARGO_PKG_VERSION"));
        match library::find() {
            Ok(path) => found.fact("library", path.display()),
            Err(stop) => found.missing("library", stop.message),
        }
        if let Some(libtorch) = self.libtorch(&mut found)? {
            describe(&libtorch, &mut found);
            if let Err(old) = libtorch.check_version() {
                found.missing("too old", old);
            } else {
                self.adapter(&libtorch, &mut found);
            }
        } else {
            compiler(&mut found);
        }
        cuda(&mut found);
        print(&found.text)?;
        Ok(u8::from(!found.good))
    }

    fn libtorch(&self, found: &mut Findings) -> Result<Option<Libtorch>, Stop> {
        let given = self.command.first();
        let name = given.map_or(OsStr::new("python3"), OsString::as_os_str);
        let Some(program) = loader::find_in_path(name) else {
            if given.is_some() {
                return Err(Stop::usage(format!(
                    "{}: no such program",
                    Path::new(name).display()
                )));
            }
            found.missing(
                "libtorch",
                "no program given and no python3 in PATH: `graphpatch doctor -- PROGRAM`",
            );
            return Ok(None);
        };
        found.fact("program", program.display());
        let libtorch = loader::find_for_program(&program);
        if libtorch.is_none() {
            found.missing(
                "libtorch",
                "it links to none that can be found (LD_LIBRARY_PATH?); one that it loads later is found when it runs",
            );
        }
        Ok(libtorch)
    }

    fn adapter(&self, libtorch: &Libtorch, found: &mut Findings) {
        if self.build
            && let Err(why) = build::cached_or_built(libtorch, false)
        {
            found.missing("adapter", why);
            return;
        }
        match loader::adapter_status(libtorch) {
            Ok(status) => match status.state {
                AdapterState::Prebuilt => {
                    found.fact("adapter", format!("built ahead: {}", status.path.display()))
                }
                AdapterState::Cached => {
                    found.fact("adapter", format!("ready: {}", status.path.display()))
                }
                AdapterState::Missing => {
                    let text = format!(
                        "not built yet: {} (on first use, or now with --build)",
                        status.path.display()
                    );
                    found.fact("adapter", text);
                    compiler(found);
                    if libtorch.include_dir.is_none() {
                        found.good = false;
                    }
                }
            },
            Err(why) => found.missing("adapter", why),
        }
    }
}

fn describe(libtorch: &Libtorch, found: &mut Findings) {
    let parts = if libtorch.cuda {
        "CPU and CUDA"
    } else {
        "CPU only"
    };
    found.fact(
        "libtorch",
        format!(
            "{} in {} ({parts})",
            libtorch.version,
            libtorch.lib_dir.display()
        ),
    );
    found.fact("build id", &libtorch.build_id);
    found.fact(
        "strings",
        if libtorch.cxx11_abi {
            "C++11 ABI"
        } else {
            "pre-C++11 ABI"
        },
    );
    match &libtorch.include_dir {
        Some(dir) => found.fact("headers", dir.display()),
        None => found.fact(
            "headers",
            "not installed; name their directory in GRAPHPATCH_TORCH_INCLUDE to build an adapter",
        ),
    }
}

fn compiler(found: &mut Findings) {
    match build::compiler() {
        Ok(compiler) => found.fact("compiler", compiler.program.display()),
        Err(why) => found.missing("compiler", why),
    }
    match cache::directory() {
        Ok(dir) => found.fact("cache", dir.display()),
        Err(why) => found.missing("cache", why),
    }
}

/// The driver and its devices: the library needs no toolkit, and a machine without a GPU is no fault.
fn cuda(found: &mut Findings) {
    for line in graphpatch::cuda::status() {
        found.fact("CUDA", line);
    }
}
