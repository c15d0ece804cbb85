//! The nodes of a sweep: the tensors of a graph whose paths match the patterns.

use graphpatch_core::graph::{self, Graph};
use graphpatch_core::path::{NodePath, Pattern};

use crate::voice::Stop;

/// The paths of the tensors that match the patterns, each once, in the order of the graphs.
///
/// # Errors
///
/// A pattern that matches no tensor; the message suggests similar paths.
pub fn matching(graphs: &[Graph], patterns: &[Pattern]) -> Result<Vec<NodePath>, Stop> {
    if graphs.iter().all(|graph| graph.root.children.is_empty()) {
        return Err(Stop::usage(
            "no libtorch model ran: there are no nodes to sweep over",
        ));
    }
    graph::matching(graphs, patterns).map_err(|why| Stop::usage(format!("--nodes {why}")))
}

/// What to say of nodes, or of a metric's node, that several roots have.
pub fn shared_note<'a>(
    graphs: &[Graph],
    paths: impl Iterator<Item = &'a NodePath>,
) -> Option<String> {
    let mut notes = paths.filter_map(|path| graph::shared_note(graphs, path));
    let first = notes.next()?;
    Some(match notes.count() {
        0 => first,
        more => format!("{first}; so it is with {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;

    fn found(patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<Pattern> = patterns
            .iter()
            .map(|text| text.parse().expect("pattern"))
            .collect();
        matching(&[samples::graph(), samples::graph()], &patterns)
            .map(|paths| paths.iter().map(NodePath::to_string).collect())
            .map_err(|stop| stop.message)
    }

    #[test]
    fn patterns_mean_tensors() {
        let all = |patterns: &[&str]| found(patterns).expect("nodes");
        assert_eq!(all(&["x"]), ["x"]);
        assert_eq!(all(&["*.output", "x"]), ["x", "linear.output"]);
        assert_eq!(all(&["**.output"]), ["linear.output", "output"]);
        assert_eq!(all(&["split|sub_[01]"]), ["split|sub_0", "split|sub_1"]);
        assert_eq!(
            all(&["{linear,split}*.{input,weight}"]),
            ["linear.input", "linear.weight"]
        );
        assert_eq!(all(&["lin*.*"]).len(), 4);
        assert_eq!(all(&["{,linear.}output"]), ["linear.output", "output"]);
        assert_eq!(all(&["*"]), ["x", "cat", "output"]);
    }

    #[test]
    fn one_that_means_none_is_told_what_was_meant() {
        let why = |pattern: &str| found(&["x", pattern]).expect_err("found");
        assert!(why("linear").ends_with("; 'linear.output' does"));
        assert!(why("split").ends_with("; 'split|*' does"));
        assert!(why("weight").ends_with("; '**.weight' does"));
        assert!(why("absent_*").contains("'absent_*' matches no tensor"));
        let typo = why("linaer.output");
        assert!(typo.contains("nearest: linear.output"), "{typo}");
        for bad in ["", "a[", "a{b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
