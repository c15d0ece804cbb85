//! Patterns in recorded graphs: the tensors that they match, and a patch at each of these.

use std::collections::HashSet;

use super::nearest::{Offer, nearest_line};
use super::{Graph, Query};
use crate::error::{Error, Result};
use crate::patch::PatchSpec;
use crate::path::{NodePath, Pattern};

/// The tensors that the patterns match, each once, in the order of the graphs.
///
/// # Errors
///
/// [`Error::Path`] for the first pattern that matches none, with similar paths.
pub fn matching(graphs: &[Graph], patterns: &[Pattern]) -> Result<Vec<NodePath>> {
    let tensors = tensors(graphs)?;
    for pattern in patterns {
        if !tensors.iter().any(|(root, path)| pattern.takes(root, path)) {
            return Err(Error::Path(means_none(graphs, pattern, &tensors)));
        }
    }
    Ok(meant(&tensors, patterns))
}

/// Replaces each patch whose path is a pattern by one patch for every tensor that matches, in the order of the graphs. Other
/// patches stay as they are and are not checked.
///
/// # Errors
///
/// [`Error::Path`] names all patterns that match no tensor, with similar paths.
pub fn expand(graphs: &[Graph], patches: Vec<PatchSpec>) -> Result<Vec<PatchSpec>> {
    if !patches.iter().any(|patch| is_pattern(graphs, &patch.path)) {
        return Ok(patches);
    }
    let tensors = tensors(graphs)?;
    let (mut all, mut bad) = (Vec::new(), Vec::new());
    for patch in patches {
        if !is_pattern(graphs, &patch.path) {
            all.push(patch);
            continue;
        }
        let pattern: Pattern = patch.path.to_string().parse()?;
        let paths = meant(&tensors, std::slice::from_ref(&pattern));
        if paths.is_empty() {
            bad.push(means_none(graphs, &pattern, &tensors));
        }
        all.extend(paths.into_iter().map(|path| PatchSpec {
            path,
            ..patch.clone()
        }));
    }
    match bad.is_empty() {
        true => Ok(all),
        false => Err(Error::Path(bad.join("\n"))),
    }
}

/// Whether the path is a pattern. It is none if a graph has a key of a dict that is written so.
fn is_pattern(graphs: &[Graph], path: &NodePath) -> bool {
    path.is_pattern() && !graphs.iter().any(|graph| graph.value(path).is_some())
}

type Tensors<'a> = Vec<(&'a str, NodePath)>;

fn tensors(graphs: &[Graph]) -> Result<Tensors<'_>> {
    let everything = Query {
        shape: Some("...".parse()?),
        ..Query::default()
    };
    let of = |graph: &'_ Graph| {
        let found = graph.search(&NodePath::root(), &everything).into_iter();
        found.map(|hit| hit.path).collect::<Vec<_>>()
    };
    let named = |graph| {
        of(graph)
            .into_iter()
            .map(|path| (graph.name.as_str(), path))
    };
    Ok(graphs.iter().flat_map(named).collect())
}

fn meant(tensors: &Tensors<'_>, patterns: &[Pattern]) -> Vec<NodePath> {
    let (mut seen, mut meant) = (HashSet::new(), Vec::new());
    for (root, path) in tensors {
        let taking = patterns.iter().find(|pattern| pattern.takes(root, path));
        let path = taking.map(|pattern| path.in_root(pattern.root().map(str::to_owned)));
        if let Some(path) = path.filter(|path| seen.insert(path.clone())) {
            meant.push(path);
        }
    }
    meant
}

fn means_none(graphs: &[Graph], pattern: &Pattern, tensors: &Tensors<'_>) -> String {
    let text = pattern.to_string();
    if tensors.is_empty() {
        return format!("'{text}' matches no tensor: no libtorch model ran");
    }
    let finds = |pattern: &Pattern| tensors.iter().any(|(_, path)| pattern.fits(path));
    let longer = [".output", "|*", "|*.*", ".output|*"];
    let longer = longer.iter().filter_map(|end| pattern.with(end));
    let anywhere = format!("**.{text}").parse::<Pattern>().ok();
    let hint = match longer.chain(anywhere).find(finds) {
        Some(other) => format!("; '{other}' does"),
        None => text.parse::<NodePath>().map_or_else(
            |_| String::new(),
            |path| nearest_line(graphs, &path, Offer::Leaves, "  "),
        ),
    };
    let hint = match hint.as_str() {
        "" => "; `graphpatch run --tree` shows the names",
        hint => hint,
    };
    format!("'{text}' matches no tensor of the graph{hint}")
}

#[cfg(test)]
mod tests {
    use super::super::samples::tuple_output;
    use super::*;

    fn expanded(texts: &[&str]) -> std::result::Result<Vec<String>, String> {
        let patches = texts.iter().map(|text| text.parse().unwrap()).collect();
        let all = expand(&[tuple_output(), tuple_output()], patches);
        let all = all.map_err(|error| error.to_string())?;
        Ok(all.iter().map(PatchSpec::to_string).collect())
    }

    #[test]
    fn a_patch_stands_at_every_tensor_that_is_meant() {
        assert_eq!(
            expanded(&["linear*.output[0]=zero", "x=probe", "output|*=add:1"]).unwrap(),
            [
                "linear.output[0]=zero",
                "linear_1.output[0]=zero",
                "x=probe",
                "output|sub_0=add:1",
                "output|sub_1=add:1",
            ]
        );
        assert_eq!(
            expanded(&["**.{weight,bias}=zero"]).unwrap().len(),
            4,
            "the parameters of both calls"
        );
    }

    #[test]
    fn patches_at_paths_are_left_as_they_are() {
        assert_eq!(expanded(&["absent=zero"]).unwrap(), ["absent=zero"]);
    }

    #[test]
    fn all_patterns_that_mean_nothing_are_told() {
        let why = expanded(&["*_1=zero", "lineer_?.output=zero", "x=zero"]).unwrap_err();
        assert!(
            why.contains("'*_1' matches no tensor of the graph; '*_1.output' does"),
            "{why}"
        );
        assert!(
            why.contains("'lineer_?.output' matches no tensor of the graph\n  nearest: linear"),
            "{why}"
        );
    }
}
