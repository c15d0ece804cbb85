//! What `graphpatch run` says when the program has ended: trees, the summary, notes, and which patches did not work.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use graphpatch_core::error::Error;
use graphpatch_core::graph::{self, Graph};
use graphpatch_core::patch::PatchSpec;
use graphpatch_core::path::NodePath;
use graphpatch_loader::{find_in_path, why_not_preloaded};
use graphpatch_protocol::trace::load_all;
use graphpatch_protocol::{PatchReport, Report};

use crate::commands::check;
use crate::commands::show::lines;
use crate::launch::failure::why_failed;
use crate::launch::outcome::{Outcome, not_written};
use crate::launch::summary;
use crate::launch::trace;
use crate::launch::wanted::Wanted;
use crate::voice::{Stop, say, show_on_stderr};

/// The exit code if a patch never matched or failed, while the program itself ended with 0.
const PATCH_FAILED: u8 = 3;
/// The exit code if a file could not be written at the end, while the program itself ended with 0.
const NOT_SAVED: u8 = 1;

impl Outcome {
    /// Prints and saves what the user asked for. Returns the command's exit code; `code` is the program's own.
    pub fn tell(&self, wanted: &Wanted, code: u8) -> Result<u8, Stop> {
        let graphs = self.graphs();
        let patches = self.patches(&wanted.patches);
        if wanted.tree {
            show_on_stderr(&trees(&graphs)?);
        }
        if wanted.summary {
            show_on_stderr(&self.summary(&wanted.patches, &patches));
        }
        self.tell_notes(wanted);
        // A file that cannot be saved is reported, but everything else is still printed and saved.
        let graph_lost = wanted.graph.iter().flat_map(|file| self.save(file));
        let graph_lost: Vec<String> = graph_lost.collect();
        let kept_lost = wanted.save.iter().flat_map(|file| self.save_kept(file));
        let kept_lost: Vec<String> = kept_lost.collect();
        let graph = wanted.graph.as_ref().filter(|_| graph_lost.is_empty());
        let kept = wanted.save.as_ref().filter(|_| kept_lost.is_empty());
        self.tell_written(graph, kept);
        let trace_lost: Vec<String> = wanted
            .trace
            .iter()
            .filter_map(|file| self.trace(file))
            .collect();
        let lost = [graph_lost, kept_lost, trace_lost].concat();
        for note in check::shared(&graphs, &wanted.patches) {
            say(note);
        }
        let all_done = complain(&wanted.patches, &patches, &graphs);
        for why in &lost {
            say(why);
        }
        Ok(match code {
            0 if !all_done => PATCH_FAILED,
            0 if !lost.is_empty() => NOT_SAVED,
            _ => code,
        })
    }

    /// Prints one line that names the files that were written, and the command that shows them.
    fn tell_written(&self, graph: Option<&PathBuf>, kept: Option<&PathBuf>) {
        let (graphs, kept) = (self.files(graph), self.files(kept));
        let written: Vec<String> = [&graphs[..], &kept].concat();
        if written.is_empty() {
            return;
        }
        let next = match (&graphs[..], &kept[..]) {
            ([], _) => String::new(),
            ([graph, ..], []) => format!("; to see it: graphpatch view {graph}"),
            ([graph, ..], [kept, ..]) => {
                format!("; to see them: graphpatch view {graph} --values {kept}")
            }
        };
        say(format!("wrote {}{next}", written.join(", ")));
    }

    /// Saves the trace. Returns why that was not possible, if so.
    fn trace(&self, file: &Path) -> Option<String> {
        let events = load_all(&self.dir);
        if events.is_empty() {
            return Some(not_written(file, "no model ran"));
        }
        match trace::save(file, &events, &self.reports) {
            Ok(()) => {
                let file = file.display();
                say(format!(
                    "wrote {file}; to see it: open it at ui.perfetto.dev"
                ));
                None
            }
            Err(why) => Some(why.to_string()),
        }
    }

    fn files(&self, file: Option<&PathBuf>) -> Vec<String> {
        let files = file.into_iter().flat_map(|file| self.by_rank(file));
        files.map(|(file, _)| file.display().to_string()).collect()
    }

    fn summary(&self, specs: &[PatchSpec], patches: &[PatchReport]) -> String {
        let processes = self.reports.iter().filter(|report| report.runs > 0).count();
        summary::table(specs, patches)
            + &format!(
                "graphpatch: {} in {}\n",
                count(self.runs(), "run", "runs"),
                count(processes as u64, "process", "processes")
            )
    }

    fn tell_notes(&self, wanted: &Wanted) {
        let mut told = BTreeSet::new();
        for report in &self.reports {
            if let Some(error) = &report.error {
                say(format!(
                    "process {} ({}) ran untouched: {error}",
                    report.pid, report.program
                ));
            }
            for note in &report.notes {
                if told.insert(note) {
                    say(note);
                }
            }
        }
        for why in &self.damaged {
            say(why);
        }
        // Helper processes of a program (such as those of torch.compile) call no model. They are reported only if no process
        // had a run.
        let is_program = |report: &Report| report.ppid == std::process::id() || self.runs() == 0;
        let unseen = self.reports.iter().filter(|report| report.unseen_python);
        let processes: Vec<String> = unseen
            .filter(|report| is_program(report))
            .map(|report| report.pid.to_string())
            .collect();
        if wanted.wants_inside() && !processes.is_empty() {
            say(format!(
                "modules called by Python were not seen in process {}: our sitecustomize did not run (python -I, -E, -S, or \
                 another PYTHONPATH), or it said above why it could not work",
                processes.join(", ")
            ));
        }
        let asked = wanted.summary || wanted.wants_inside();
        let explained = |report: &Report| report.error.is_some() || report.own_session;
        let explained = self.runs() > 0 || self.reports.iter().any(explained);
        if asked && !explained {
            say(self.why_nothing(wanted));
        }
        let flat = self.reports.iter().any(|report| report.flat);
        if self.runs() > 0 && !wanted.run_at.is_empty() && !flat {
            say(
                "--run-at: nothing begins there, since this program tells of its runs itself; --operations always lists what it \
                 calls outside of them",
            );
        }
    }

    /// Why no run began.
    fn why_nothing(&self, wanted: &Wanted) -> String {
        if let Some(cause) = self.why_unseen(&wanted.program) {
            return cause;
        }
        let first = self.reports.first();
        let hint = match first.and_then(|report| report.libtorch.as_deref()) {
            None => format!(
                "; `graphpatch doctor -- {}` says whether it finds a libtorch",
                wanted.program
            ),
            Some(libtorch) if self.reports.iter().any(|report| report.flat) => {
                match wanted.run_at.is_empty() {
                    true => format!(" (it loads libtorch {libtorch}, but called no operation)"),
                    false => format!(
                        " (--run-at {}: there was no such call)",
                        wanted.run_at.join(", ")
                    ),
                }
            }
            Some(libtorch) => format!(
                " (it loads libtorch {libtorch}, but called no module; --operations always lists single operations)"
            ),
        };
        format!("no libtorch model ran in {}{hint}", wanted.program)
    }
}

impl Outcome {
    /// If no preloaded process has seen a libtorch: the reason, as far as it is known.
    fn why_unseen(&self, program: &str) -> Option<String> {
        if self.lost.late {
            return Some(format!(
                "a libtorch was loaded in {program} where it is not seen (a plugin opened with RTLD_DEEPBIND loads it by itself): \
                 link it, or load it before"
            ));
        }
        if self.reports.iter().any(|report| report.libtorch.is_some()) {
            return None;
        }
        let whole = find_in_path(OsStr::new(program))?;
        if let Some(why) = why_not_preloaded(&whole) {
            return Some(format!("{program} {why}: nothing in it can be seen"));
        }
        let lost: Vec<&str> = self.lost.programs.iter().map(String::as_str).collect();
        (!lost.is_empty()).then(|| {
            format!(
                "{} ran without libgraphpatch: what started it (env -i, a launcher) took LD_PRELOAD out of its environment; \
                 LD_PRELOAD, GRAPHPATCH_OPTIONS and PYTHONPATH have to stay",
                lost.join(", ")
            )
        })
    }
}

fn trees(graphs: &[Graph]) -> Result<String, Error> {
    let mut text = String::new();
    for graph in graphs {
        if graphs.len() > 1 {
            text += &format!("# {}\n", graph.name);
        }
        text += &lines(graph.tree(&NodePath::root())?);
    }
    Ok(text)
}

/// Prints which patches never matched or failed. True if there are none.
fn complain(specs: &[PatchSpec], patches: &[PatchReport], graphs: &[Graph]) -> bool {
    let mut good = true;
    for (spec, patch) in specs.iter().zip(patches) {
        if patch.failed > 0 {
            good = false;
            let error = patch.last_error.as_deref();
            say(format!(
                "patch {} failed {}{}",
                patch.text,
                count(patch.failed, "time", "times"),
                error.map_or(String::new(), |error| why_failed(spec, error))
            ));
        }
        if patch.matched == 0 {
            good = false;
            say(format!(
                "patch {} never matched{}",
                patch.text,
                reason(spec, graphs)
            ));
        }
    }
    good
}

fn reason(spec: &PatchSpec, graphs: &[Graph]) -> String {
    if graphs.is_empty() {
        return " (run with --tree to see the names)".into();
    }
    match graph::check(graphs, std::slice::from_ref(&spec.path)) {
        // The message begins with a heading for several paths. Here it is about one path, so the heading is left out.
        Err(Error::Path(text)) => {
            format!(":\n{}", text.lines().skip(1).collect::<Vec<_>>().join("\n"))
        }
        Err(error) => format!(": {error}"),
        Ok(()) if graphs.iter().any(|graph| graph.is_parameter(&spec.path)) => {
            ", since no operation read that parameter or buffer: where it is only written to, patch what the \
             operation that writes returns"
                .into()
        }
        Ok(()) => ", though that value was recorded".into(),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_protocol::Lost;

    fn report(matched: u64) -> Report {
        let patch = PatchReport {
            text: "a=zero".into(),
            matched,
            applied: matched,
            ..PatchReport::default()
        };
        Report {
            runs: 2,
            patches: vec![patch],
            ..Report::default()
        }
    }

    #[test]
    fn processes_are_summed_and_patches_that_did_nothing_are_told() {
        let specs: Vec<PatchSpec> = vec!["a=zero".parse().expect("patch")];
        let outcome = |reports: Vec<Report>| Outcome {
            reports,
            damaged: vec![],
            lost: Lost::default(),
            dir: PathBuf::new(),
        };
        let all = outcome(vec![report(3), report(4), report(0)]);
        let sums = all.patches(&specs);
        let summary = all.summary(&specs, &sums);
        assert!(
            summary.contains("a=zero") && summary.ends_with("graphpatch: 6 runs in 3 processes\n"),
            "{summary}"
        );
        assert!(complain(&specs, &sums, &[]));
        assert!(!complain(&specs, &outcome(vec![]).patches(&specs), &[]));
    }
}
