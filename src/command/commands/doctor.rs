//! `graphpatch doctor`: which libtorch, which adapter, which CUDA, and what to do about a missing one.

mod findings;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;
use graphpatch_loader::{self as loader, AdapterState, Libtorch, build, cache, compiler};

use crate::launch::library;
use crate::voice::{Stop, print};
use findings::{Adapter, Compiler, Findings, Torch};

/// Which libtorch, adapter and CUDA a program would use, and what is missing
///
/// The exit code is 1 where `graphpatch run` would not get inside the program.
#[derive(Args)]
pub struct Doctor {
    /// Build the adapter now
    #[arg(long)]
    build: bool,
    /// The libtorch in this folder: a torch package, an unpacked libtorch archive, or its lib
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    torch: Option<PathBuf>,
    /// Put the adapter that --build makes there, to be shipped: `graphpatch-adapters` beside the library, or any folder
    /// that GRAPHPATCH_ADAPTER_DIR names later
    #[arg(long, value_name = "DIR", requires = "build")]
    into: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The program to look at; else the Python of this environment
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Doctor {
    pub fn run(self) -> Result<u8, Stop> {
        let mut found = Findings {
            graphpatch: env!("CARGO_PKG_VERSION"),
            cuda: graphpatch_cuda::status(),
            ..Findings::default()
        };
        match library::find() {
            Ok(path) => found.library = Some(path),
            Err(stop) => found.advise(stop.message),
        }
        let libtorch = self.libtorch(&mut found)?;
        if let Some(libtorch) = &libtorch {
            found.libtorch = Some(Torch::from(libtorch));
            match libtorch.check_version() {
                Ok(()) => self.adapter(libtorch, &mut found),
                Err(why) => found.advise(why),
            }
        }
        let settled = found.adapter.as_ref().is_some_and(|adapter| adapter.ready);
        tools(libtorch.as_ref(), settled, &mut found);
        print(&if self.json {
            found.json().map_err(Stop::usage)?
        } else {
            found.text()
        })?;
        Ok(u8::from(!found.good()))
    }

    fn libtorch(&self, found: &mut Findings) -> Result<Option<Libtorch>, Stop> {
        if let Some(dir) = &self.torch {
            return match loader::in_directory(dir) {
                Some(libtorch) => Ok(Some(libtorch)),
                None => Err(Stop::usage(format!(
                    "{}: there is no libtorch_cpu.so in it, nor in its lib",
                    dir.display()
                ))),
            };
        }
        let given = self.command.first();
        let name = given.map_or(OsStr::new("python3"), OsString::as_os_str);
        let Some(program) = loader::find_in_path(name) else {
            if given.is_some() {
                return Err(Stop::usage(format!(
                    "{}: no such program",
                    Path::new(name).display()
                )));
            }
            found.advise(
                "no program given and no python3 in PATH: `graphpatch doctor -- PROGRAM`, or --torch DIR",
            );
            return Ok(None);
        };
        let seen = loader::find_for_program(&program);
        if seen.libtorch.is_none() {
            found.advise(match (&seen.python, &seen.missing[..]) {
                (Some(python), _) => format!(
                    "{} has no torch package: install PyTorch there, or name another Python or program",
                    python.display()
                ),
                (None, []) => "the program links to no libtorch; one that it loads later is found when it runs (name its \
                               folder with --torch to look at it now)"
                    .into(),
                (None, missing) => format!(
                    "the program needs {}, not found: name the folder in LD_LIBRARY_PATH",
                    missing.join(", ")
                ),
            });
        }
        found.program = Some(program);
        found.looked = seen.looked;
        Ok(seen.libtorch)
    }

    fn adapter(&self, libtorch: &Libtorch, found: &mut Findings) {
        if self.build {
            let built = match &self.into {
                Some(dir) => build::place_in(libtorch, dir).map(Some),
                None => build::cached_or_built(libtorch, false).map(|_| None),
            };
            match built {
                Ok(placed) => found.placed = placed,
                Err(why) => found.advise(why),
            }
        }
        let status = match loader::adapter_status(libtorch, found.library.as_deref()) {
            Ok(status) => status,
            Err(why) => return found.advise(why),
        };
        let (ready, state) = match &status.state {
            AdapterState::Prebuilt => (true, "built ahead".into()),
            AdapterState::Cached => (true, "ready".into()),
            AdapterState::Broken(why) => (false, format!("will be built anew, as this file {why}")),
            AdapterState::Missing => (
                false,
                "not built yet (on first use, or now with --build)".into(),
            ),
        };
        found.adapter = Some(Adapter {
            path: status.path,
            state,
            ready,
            built_for: libtorch.version.clone(),
        });
        found.unfit = status.shipped.near;
        found.shipped_for = status.shipped.others;
        if !ready && let Err(why) = build::headers(libtorch) {
            found.advise(why);
        }
    }
}

/// Looks at the compiler and the cache. Neither is needed if there is an adapter already (`settled`).
fn tools(libtorch: Option<&Libtorch>, settled: bool, found: &mut Findings) {
    match cache::choose() {
        Ok(cache) => {
            found.old_adapters = cache::outdated(&cache.path);
            found.cache = Some(cache.path);
            found.cache_note = cache.why_elsewhere;
        }
        Err(why) if !settled => found.advise(why),
        Err(why) => found.cache_note = Some(why.to_string()),
    }
    match compiler::compiler() {
        Ok(compiler) => {
            let standard = libtorch.map_or(compiler::NEWEST_STANDARD, compiler::standard);
            let refusal = compiler.check(standard).err();
            if let (false, Some(why)) = (settled, &refusal) {
                found.advise(format!(
                    "{} does not compile C++{standard} ({why}): name a newer one in CXX (g++ 10, clang++ 10 or later)",
                    compiler.program.display()
                ));
            }
            found.compiler = Some(Compiler {
                version: compiler.version(),
                path: compiler.program,
                standard,
                good: refusal.is_none(),
            });
        }
        Err(why) if !settled => found.advise(why),
        Err(_) => {}
    }
}
