//! What `doctor` has found, as text and as JSON.

use std::fmt::Display;
use std::path::PathBuf;

use graphpatch_loader::{Libtorch, supported};
use serde::Serialize;

/// Everything that was found. `advice` has a line for each thing that is missing, and is empty if nothing is missing.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    pub graphpatch: &'static str,
    pub library: Option<PathBuf>,
    pub program: Option<PathBuf>,
    /// The libraries among which the program's libtorch was searched.
    pub looked: Vec<PathBuf>,
    pub libtorch: Option<Torch>,
    pub adapter: Option<Adapter>,
    /// Where `--into` has put the adapter.
    pub placed: Option<PathBuf>,
    /// Adapters built ahead that nearly fit, each with what is wrong with it.
    pub unfit: Vec<String>,
    /// The other libtorch versions that adapters were built ahead for.
    pub shipped_for: Vec<String>,
    pub compiler: Option<Compiler>,
    pub cache: Option<PathBuf>,
    /// Why the cache is not in its usual directory, if so.
    pub cache_note: Option<String>,
    /// How many adapters of other versions of libgraphpatch the cache holds.
    pub old_adapters: usize,
    pub cuda: Vec<String>,
    pub advice: Vec<String>,
}

/// The libtorch that the program would use.
#[derive(Debug, Serialize)]
pub struct Torch {
    pub version: String,
    pub lib: PathBuf,
    pub build_id: String,
    pub cxx11_abi: bool,
    /// None in a build for CPUs only.
    pub cuda: Option<String>,
    pub headers: Option<PathBuf>,
}

impl From<&Libtorch> for Torch {
    fn from(libtorch: &Libtorch) -> Torch {
        Torch {
            version: libtorch.version.clone(),
            lib: libtorch.lib_dir.clone(),
            build_id: libtorch.build_id.clone(),
            cxx11_abi: libtorch.cxx11_abi,
            cuda: libtorch.cuda.clone(),
            headers: libtorch.include_dir.clone(),
        }
    }
}

/// The adapter for that libtorch.
#[derive(Debug, Serialize)]
pub struct Adapter {
    pub path: PathBuf,
    pub state: String,
    pub ready: bool,
    pub built_for: String,
}

/// The C++ compiler that would build an adapter.
#[derive(Debug, Serialize)]
pub struct Compiler {
    pub path: PathBuf,
    pub version: Option<String>,
    /// The C++ standard that was asked of it: that of libtorch's headers.
    pub standard: u32,
    pub good: bool,
}

impl Findings {
    /// Adds a line that says what is missing and what to do. It is added once, however many steps need it.
    pub fn advise(&mut self, line: impl Display) {
        let line = line.to_string();
        if !self.advice.contains(&line) {
            self.advice.push(line);
        }
    }

    /// Whether `run` would get inside the program.
    pub fn good(&self) -> bool {
        self.advice.is_empty()
    }

    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("graphpatch", self.graphpatch);
        lines.path("library", self.library.as_ref());
        lines.path("program", self.program.as_ref());
        match &self.libtorch {
            Some(torch) => torch.tell(&mut lines),
            None => {
                lines.add("libtorch", "none found");
                for path in &self.looked {
                    lines.add("looked at", path.display());
                }
            }
        }
        self.tell_adapters(&mut lines);
        match &self.compiler {
            Some(compiler) => lines.add("compiler", compiler),
            None => lines.add("compiler", "none"),
        }
        self.tell_cache(&mut lines);
        for line in &self.cuda {
            lines.add("CUDA", line);
        }
        for line in &self.advice {
            lines.add("to do", line);
        }
        lines.0
    }

    /// The adapter for this libtorch, and those that were built ahead.
    fn tell_adapters(&self, lines: &mut Lines) {
        if let Some(adapter) = &self.adapter {
            let Adapter { path, state, .. } = adapter;
            lines.add("adapter", format!("{state}: {}", path.display()));
            if adapter.ready {
                let built_for = &adapter.built_for;
                lines.add(
                    "",
                    format!("built for this libtorch ({built_for}) by this libgraphpatch"),
                );
            }
        }
        if let Some(placed) = &self.placed {
            lines.add("", format!("copied to {}", placed.display()));
        }
        for line in &self.unfit {
            lines.add("", line);
        }
        if !self.shipped_for.is_empty() {
            let others = self.shipped_for.join(", ");
            lines.add("", format!("others were built ahead for libtorch {others}"));
        }
    }

    fn tell_cache(&self, lines: &mut Lines) {
        lines.path("cache", self.cache.as_ref());
        if let Some(note) = &self.cache_note {
            lines.add("", note);
        }
        if self.old_adapters > 0 {
            let old = self.old_adapters;
            lines.add(
                "",
                format!(
                    "holds {old} adapters of other versions of libgraphpatch; delete them if you no longer use those versions"
                ),
            );
        }
    }
}

impl Torch {
    fn tell(&self, lines: &mut Lines) {
        let parts = match &self.cuda {
            Some(version) => format!("CUDA {version}"),
            None => "CPU only".into(),
        };
        lines.add(
            "libtorch",
            format!("{} ({parts}) in {}", self.version, self.lib.display()),
        );
        let strings = if self.cxx11_abi {
            "C++11 strings"
        } else {
            "pre-C++11 strings"
        };
        lines.add("", format!("build id {}, {strings}", self.build_id));
        match &self.headers {
            Some(dir) => lines.add("", format!("headers in {}", dir.display())),
            None => lines.add("", "headers not installed"),
        }
        lines.add("", format!("libtorch {} is supported", supported()));
    }
}

impl Display for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        let can = if self.good { "can" } else { "cannot" };
        let (path, standard) = (self.path.display(), self.standard);
        write!(f, "{path} ({version}), {can} do C++{standard}")
    }
}

/// Aligned lines: what, and what was found.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, found: impl Display) {
        self.0 += &format!("{what:<10} {found}\n");
    }

    fn path(&mut self, what: &str, path: Option<&PathBuf>) {
        if let Some(path) = path {
            self.add(what, path.display());
        }
    }
}
