//! Many runs, some at a time, with a bar and an estimate of the time that is left.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::table::Row;
use crate::voice::{Stop, say};

/// Measures each of the experiments, `jobs` at a time, and hands the rows to `take` on this thread as they come. Begins no
/// further run once `measure` has returned `None` (the sweep is to end) or an error, or `take` has failed.
pub fn run<E: Sync>(
    experiments: &[&E],
    jobs: usize,
    measure: impl Fn(&E) -> Result<Option<Row>, Stop> + Sync,
    mut take: impl FnMut(Row) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let left = Mutex::new(experiments.iter());
    let next = || left.lock().next();
    let stop = || left.lock().by_ref().for_each(drop);
    let bar = bar(experiments.len() as u64, jobs);
    let (sender, rows) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.min(experiments.len()) {
            let sender = sender.clone();
            let (next, stop, measure) = (&next, &stop, &measure);
            scope.spawn(move || {
                while let Some(experiment) = next() {
                    let row = measure(experiment).transpose();
                    let last = row.as_ref().is_none_or(Result::is_err);
                    if last {
                        stop();
                    }
                    if row.is_some_and(|row| sender.send(row).is_err()) || last {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut failed = 0;
        let mut result = Ok(());
        for row in rows {
            let taken = row.and_then(|row| {
                failed += u64::from(row.why.is_some());
                take(row)
            });
            bar.inc(1);
            if failed > 0 {
                bar.set_message(format!(", {failed} failed"));
            }
            if let Err(why) = taken {
                stop();
                result = result.and(Err(why));
            }
        }
        bar.finish_and_clear();
        result
    })
}

fn bar(length: u64, jobs: usize) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("sweep {wide_bar} {pos}/{len}{msg}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    if bar.is_hidden() && length > 0 {
        say(format!(
            "sweep: {length} runs, {} at a time",
            jobs.min(length as usize)
        ));
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// The spinner that is shown during the bare run.
pub fn bare() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message("sweep: the bare run");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::patch::PatchSpec;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn patches() -> Vec<PatchSpec> {
        (0..20)
            .map(|i| format!("a_{i}=zero").parse().expect("patch"))
            .collect()
    }

    fn row(patch: &PatchSpec) -> Row {
        Row {
            node: patch.path.clone(),
            place: None,
            why: None,
            values: vec![],
            seconds: 0.0,
        }
    }

    #[test]
    fn all_are_measured_once() {
        let patches = patches();
        let mut seen = BTreeSet::new();
        let all: Vec<&PatchSpec> = patches.iter().collect();
        let done = run(
            &all,
            3,
            |patch| Ok(Some(row(patch))),
            |row| {
                assert!(seen.insert(row.node));
                Ok(())
            },
        );
        assert!(done.is_ok() && seen.len() == patches.len());
        assert!(run(&[], 3, |_| Ok(None), |_| Ok(())).is_ok());
    }

    #[test]
    fn nothing_begins_after_the_end() {
        let patches = patches();
        let all: Vec<&PatchSpec> = patches.iter().collect();
        let begun = AtomicUsize::new(0);
        let ending = |how: fn() -> Result<Option<Row>, Stop>| {
            begun.store(0, Ordering::SeqCst);
            let measure = |patch: &PatchSpec| match begun.fetch_add(1, Ordering::SeqCst) {
                4 => how(),
                _ => Ok(Some(row(patch))),
            };
            let mut taken = 0;
            let result = run(&all, 2, measure, |_| {
                taken += 1;
                Ok(())
            });
            (taken, result.is_ok(), begun.load(Ordering::SeqCst))
        };
        let (taken, good, begun_in_all) = ending(|| Ok(None));
        assert!(
            good && taken + 1 == begun_in_all && taken < patches.len(),
            "{taken}"
        );
        let (taken, good, _) = ending(|| Err(Stop::usage("no")));
        assert!(!good && taken < patches.len());
        let full = run(
            &all,
            2,
            |patch| Ok(Some(row(patch))),
            |_| Err(Stop::usage("disk full")),
        );
        assert!(full.is_err());
    }
}
