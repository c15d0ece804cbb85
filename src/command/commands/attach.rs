//! `graphpatch attach`: a program that runs already gets the library and listens, as if `graphpatch run --live` had started it.
//!
//! Everything that takes time or may fail for want of a file is done before the process is touched: its libtorch's adapter is
//! built, and each file is looked at as the process will see it. Then the crate `graphpatch_attach` has one of the
//! process's threads load the library, and a thread of the library's does the rest and writes an answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use graphpatch_attach::{Call, Called, Process, call, family};
use graphpatch_loader::trust::Folder;
use graphpatch_loader::{
    self as loader, DISABLE_VARIABLE, Libtorch, build, check_library, is_libtorch_cpu, sockets,
};
use graphpatch_protocol::attach::{Attach as Request, Attached, DONE, ENTRY};
use graphpatch_protocol::live::Request as Live;
use serde_json::json;

use crate::commands::live::processes;
use crate::commands::vllm::{self, Part};
use crate::launch::{library, python_package, start};
use crate::voice::{Stop, print, say};

/// The variable that says how many seconds a thread is looked for.
const LIMIT: &str = "GRAPHPATCH_ATTACH_LIMIT";
const USUAL_LIMIT: Duration = Duration::from_secs(10);
/// How long the library may take inside the process at least: to load the adapter, and to be let in by Python.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  graphpatch attach 4711                                      then, as with `graphpatch run --live`:
  graphpatch live 4711 tree
  graphpatch live 4711 patch 'layers_0.mlp.output[..., 0]=zero'
  graphpatch serve 4711
  graphpatch attach --detach 4711                             the program runs as before
Exit codes: 0 where the process listens, also if it did before; 2 where it cannot be used, which leaves it as it was.";

/// Have a program that runs already listen, without restarting it
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Attach {
    /// The process
    pid: u32,
    /// Take every patch and hook away again; the process listens no more
    #[arg(long)]
    detach: bool,
    /// Print what was done, as JSON
    #[arg(long)]
    json: bool,
}

/// What was done, for `--json` and for the messages.
#[derive(Default)]
struct Outcome {
    listened_before: bool,
    called: Option<Called>,
    answer: Attached,
}

impl Attach {
    pub fn run(self) -> Result<u8, Stop> {
        if self.detach {
            processes::choose(Some(self.pid))?.ask(&Live::Detach {})?;
            return self.report_detached();
        }
        let outcome = match processes::only(Some(self.pid))? {
            Some(_) => Outcome {
                listened_before: true,
                ..Outcome::default()
            },
            None => {
                self.prepare_server()?;
                self.attach()?
            }
        };
        self.report(&outcome)
    }

    /// In a vLLM server, the process must be the one that runs the model. Its engine learns when patches change, so that its prefix
    /// cache keeps nothing that was computed with others.
    fn prepare_server(&self) -> Result<(), Stop> {
        match vllm::part(self.pid) {
            Some(Part::Other { found, is_vllms }) => {
                let text = format!("vLLM's model runs in {}", vllm::listed(&found));
                match is_vllms || !has_libtorch(self.pid) {
                    true => Err(self.refuse(format!("runs no model: {text}"))),
                    false => {
                        // It may have a model of its own, as a program that trains.
                        say(text);
                        Ok(())
                    }
                }
            }
            Some(Part::Model {
                engine: Some(engine),
            }) => {
                let engine = Attach {
                    pid: engine,
                    detach: false,
                    json: false,
                };
                if let Err(why) = engine.attach().and_then(|done| engine.let_be(done.answer)) {
                    say(format!(
                        "{}. So what vLLM's prefix cache keeps is not forgotten when patches change: start the server with \
                         --no-enable-prefix-caching",
                        why.message
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Has the process go on without a socket: nobody is to ask it anything.
    fn let_be(&self, answer: Attached) -> Result<(), Stop> {
        let mut connection = processes::choose(Some(self.pid))?;
        let notes = connection.ask(&Live::Notes {})?;
        for note in notes["notes"].as_array().into_iter().flatten() {
            say(format!(
                "process {}: {}",
                self.pid,
                note.as_str().unwrap_or_default()
            ));
        }
        connection.ask(&Live::Stop {})?;
        answer.python.map_or(Ok(()), |why| Err(self.refuse(why)))
    }

    fn attach(&self) -> Result<Outcome, Stop> {
        let process = Process::look(self.pid).map_err(|why| self.refuse(why))?;
        if let Some(value) = process.variable(DISABLE_VARIABLE)
            && !matches!(value.as_slice(), b"" | b"0")
        {
            return Err(self.refuse(format!(
                "has {DISABLE_VARIABLE} set: nothing of us runs there"
            )));
        }
        let library = library::find()?;
        self.check_library(&process, &library)?;
        let adapter = adapter(&self.libtorch(&process)?, &library)?;
        let folder = start::directory()?;
        let has_python = !process.files(is_torch_of_python).is_empty();
        let python = has_python.then(|| python_package::place_for_attached(folder.path()));
        let request = Request {
            sockets: sockets::folder()?,
            adapter,
            library,
            python: python.transpose()?,
            answer: folder.path().join("answer.json"),
        };
        self.check_sight(&process, &request)?;
        let called = self.call(&process, &request)?;
        let answer = self.answer(&request.answer)?;
        if let Some(why) = answer.error {
            return Err(self.refuse(format!("has the library, but does not listen: {why}")));
        }
        if request
            .python
            .is_some_and(|file| file.starts_with(folder.path()))
        {
            // Python reads further files of the package later.
            let _ = folder.keep();
        }
        Ok(Outcome {
            listened_before: false,
            called: Some(called),
            answer,
        })
    }

    /// A refusal, whose text goes on after the process.
    fn refuse(&self, why: impl std::fmt::Display) -> Stop {
        Stop::usage(format!("process {} {why}", self.pid))
    }

    fn libtorch(&self, process: &Process) -> Result<Libtorch, Stop> {
        let Some(file) = process.files(is_libtorch_cpu).into_iter().next() else {
            return Err(self.refuse(self.no_libtorch()));
        };
        if !process.sees(&file) {
            return Err(self.elsewhere(&file));
        }
        let libtorch = Libtorch::describe(&file);
        libtorch.check_version()?;
        Ok(libtorch)
    }

    /// The rest of a sentence that begins with the process.
    fn no_libtorch(&self) -> String {
        let found: Vec<_> = family::below(self.pid)
            .into_iter()
            .filter(|one| has_libtorch(one.pid))
            .collect();
        match found.is_empty() {
            true => "has loaded no libtorch, so there is nothing to look at; if it loads one later, attach then".into(),
            false => format!(
                "has loaded no libtorch, but what it has started has: {}",
                vllm::listed(&found)
            ),
        }
    }

    /// The library must be whole, nobody else may have written it, and the process may not have another one.
    fn check_library(&self, process: &Process, library: &Path) -> Result<(), Stop> {
        let unfit = |why: String| Stop::usage(format!("{} {why}", library.display()));
        check_library(library).map_err(|why| unfit(why.to_string()))?;
        let (folder, name) = (library.parent(), library.file_name());
        let (Some(folder), Some(name)) = (folder, name) else {
            return Err(unfit("is no file".into()));
        };
        Folder::open(folder)
            .and_then(|folder| folder.look_at(name))
            .map_err(|why| unfit(why.why()))?;
        let is_ours = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("libgraphpatch.so"))
        };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        match process
            .files(is_ours)
            .into_iter()
            .find(|loaded| real(loaded) != real(library))
        {
            Some(other) => Err(self.refuse(format!(
                "has another libgraphpatch loaded, {}: name that one in GRAPHPATCH_LIBRARY, and take the command of the same \
                 version",
                other.display()
            ))),
            None => Ok(()),
        }
    }

    /// The process must see each file as we do.
    fn check_sight(&self, process: &Process, request: &Request) -> Result<(), Stop> {
        let answers = request.answer.parent();
        let paths = [&*request.library, &request.adapter, &request.sockets];
        let more = request.python.as_deref().into_iter().chain(answers);
        match paths
            .into_iter()
            .chain(more)
            .find(|path| !process.sees(path))
        {
            Some(path) => Err(self.elsewhere(path)),
            None => Ok(()),
        }
    }

    fn elsewhere(&self, path: &Path) -> Stop {
        self.refuse(format!(
            "does not see the same {} (it runs in a container, or the file was replaced since): run `graphpatch attach` inside \
             that container",
            path.display()
        ))
    }

    fn call(&self, process: &Process, request: &Request) -> Result<Called, Stop> {
        let text = serde_json::to_string(request).map_err(Stop::usage)?;
        call(
            process,
            &Call {
                library: &request.library,
                entry: ENTRY,
                done: DONE,
                request: &text,
                limit: limit()?,
            },
        )
        .map_err(|why| {
            self.refuse(format!(
                "{why}; it goes on as before ({LIMIT} gives it more time)"
            ))
        })
    }

    /// Waits for the answer.
    fn answer(&self, file: &Path) -> Result<Attached, Stop> {
        let patience = limit()?.max(ANSWER_LIMIT);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(answer) = Attached::load(file)? {
                return Ok(answer);
            }
            if !Path::new(&format!("/proc/{}/status", self.pid)).exists() {
                return Err(self.refuse("has ended meanwhile"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The socket is there before Python is asked.
        match processes::only(Some(self.pid))? {
            Some(_) => Ok(Attached {
                python: Some("Python has not let us in yet".into()),
                ..Attached::default()
            }),
            None => Err(self.refuse(format!(
                "has the library, which has not answered within {} seconds; look again with `graphpatch live`",
                patience.as_secs()
            ))),
        }
    }

    fn report(&self, outcome: &Outcome) -> Result<u8, Stop> {
        let Attached {
            python,
            tells_of_runs,
            ..
        } = &outcome.answer;
        if self.json {
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            let called = outcome.called.as_ref();
            let text = json!({
                "pid": self.pid, "listened_before": outcome.listened_before, "python": python,
                "searched_ms": called.map(|it| milliseconds(it.searched)),
                "stalled_ms": called.map(|it| milliseconds(it.stalled)),
            });
            print(&format!("{text}\n"))?;
            return Ok(0);
        }
        if let Some(why) = python {
            say(format!("calls of modules in Python are not seen: {why}"));
        }
        if !outcome.listened_before && !tells_of_runs {
            say(
                "neither TorchScript nor Python tells where runs begin: what this program calls is not seen, but for runs that it \
                 marks itself. Started by `graphpatch run --live --run-at NAME`, its operations are listed",
            );
        }
        let already = if outcome.listened_before {
            "already"
        } else {
            "now"
        };
        print(&format!(
            "process {0} listens {already}: graphpatch live {0} tree\n",
            self.pid
        ))?;
        Ok(0)
    }

    fn report_detached(&self) -> Result<u8, Stop> {
        print(&match self.json {
            true => format!("{}\n", json!({"pid": self.pid, "detached": true})),
            false => format!("process {} listens no more, and runs as before\n", self.pid),
        })?;
        Ok(0)
    }
}

fn has_libtorch(pid: u32) -> bool {
    Process::look(pid).is_ok_and(|process| !process.files(is_libtorch_cpu).is_empty())
}

/// How long a thread is looked for.
fn limit() -> Result<Duration, Stop> {
    let Ok(text) = std::env::var(LIMIT) else {
        return Ok(USUAL_LIMIT);
    };
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Stop::usage(format!("{LIMIT} is {text}, which is no number of seconds")))
}

/// The adapter for that libtorch, which is built if need be.
fn adapter(libtorch: &Libtorch, library: &Path) -> Result<PathBuf, Stop> {
    let status = loader::adapter_status(libtorch, Some(library))?;
    if status.state != loader::AdapterState::Prebuilt {
        build::cached_or_built(libtorch, false)?;
    }
    Ok(status.path)
}

fn is_torch_of_python(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("libtorch_python."))
}
