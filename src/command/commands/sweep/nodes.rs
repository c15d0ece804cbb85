//! Which nodes a sweep goes through: patterns over paths, and the tensors of a graph that they mean.

use std::collections::HashSet;

use graphpatch_core::graph::{Graph, Query};
use graphpatch_core::path::{NodePath, Pattern};

use crate::voice::Stop;

/// The tensors that the patterns mean, each once, in the order of the graphs.
///
/// # Errors
///
/// A pattern that means none, with what may have been meant.
pub fn matching(graphs: &[Graph], patterns: &[Pattern]) -> Result<Vec<NodePath>, Stop> {
    let everything = Query {
        shape: Some("...".parse()?),
        ..Query::default()
    };
    let mut tensors: Vec<(&str, NodePath)> = Vec::new();
    for graph in graphs {
        let found = graph.search(&NodePath::root(), &everything).into_iter();
        tensors.extend(found.map(|hit| (graph.name.as_str(), hit.path)));
    }
    for pattern in patterns {
        if !tensors.iter().any(|(root, path)| pattern.takes(root, path)) {
            let paths: Vec<NodePath> = tensors.into_iter().map(|(_, path)| path).collect();
            return Err(none(pattern, &paths));
        }
    }
    let (mut seen, mut meant) = (HashSet::new(), Vec::new());
    for (root, path) in &tensors {
        let taking = patterns.iter().find(|pattern| pattern.takes(root, path));
        let path = taking.map(|pattern| path.in_root(pattern.root().map(str::to_owned)));
        if let Some(path) = path.filter(|path| seen.insert(path.clone())) {
            meant.push(path);
        }
    }
    Ok(meant)
}

fn none(pattern: &Pattern, tensors: &[NodePath]) -> Stop {
    let text = pattern.to_string();
    if tensors.is_empty() {
        return Stop::usage("no libtorch model ran: there are no nodes to sweep over");
    }
    let meant = [".output", "|*", "|*.*", ".output|*"]
        .iter()
        .filter_map(|end| pattern.with(end))
        .find(|longer| tensors.iter().any(|path| longer.fits(path)));
    let anywhere = format!("**.{text}").parse::<Pattern>().ok();
    let hint = match (meant, anywhere) {
        (Some(longer), _) => format!("; '{}' does", longer),
        (None, Some(deeper)) if tensors.iter().any(|path| deeper.fits(path)) => {
            format!("; '{}' does", deeper)
        }
        _ => "; `graphpatch run --tree` shows the names".to_owned(),
    };
    Stop::usage(format!(
        "--nodes '{text}' matches no tensor of the program's graph{hint}"
    ))
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
        for bad in ["", "a[", "a{b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
