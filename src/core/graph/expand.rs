//! Patterns in recorded graphs: the tensors that they match, and a patch at each of these.

use std::collections::HashSet;

use super::inside::{ATTENTION_VALUES, leads_inside};
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
        if !tensors.iter().any(|tensor| tensor.is_meant(pattern)) {
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

/// A tensor that a pattern may mean.
struct Tensor<'a> {
    root: &'a str,
    path: NodePath,
    place: Place,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Recorded,
    /// The result of an operation whose inside is shown, by the operation's own path. It has a node `output` as well.
    Opened,
    /// Inside of an operation of which this was not shown so far. A pattern has to lead there.
    Unseen,
}

impl Tensor<'_> {
    fn is_meant(&self, pattern: &Pattern) -> bool {
        let takes = |path: &NodePath| pattern.takes(self.root, path);
        takes(&self.path)
            && match self.place {
                Place::Recorded => true,
                Place::Opened => !takes(&self.path.child("output")),
                Place::Unseen => asks_for(pattern, &self.path),
            }
    }
}

/// Whether the pattern asks for this value inside of an operation. The mask, which many calls do not have, is asked for by name.
fn asks_for(pattern: &Pattern, path: &NodePath) -> bool {
    let Ok(asked) = pattern.to_string().parse::<NodePath>() else {
        return false;
    };
    let (last, masks) = (path.names.last(), ["mask", "masked_scores"]);
    let always = last.is_some_and(|name| !masks.contains(&name.as_str()));
    leads_inside(&asked) && (always || asked.names.last() == last)
}

type Tensors<'a> = Vec<Tensor<'a>>;

fn tensors(graphs: &[Graph]) -> Result<Tensors<'_>> {
    let everything = Query {
        shape: Some("...".parse()?),
        ..Query::default()
    };
    let mut all = Vec::new();
    for graph in graphs {
        let root = graph.name.as_str();
        let mut add = |path, place| all.push(Tensor { root, path, place });
        for hit in graph.search(&NodePath::root(), &everything) {
            if hit.node.is_closed() {
                let inside = ATTENTION_VALUES.iter().map(|name| hit.path.child(*name));
                inside.for_each(|path| add(path, Place::Unseen));
            }
            add(hit.path, Place::Recorded);
        }
        for hit in graph.search(&NodePath::root(), &Query::default()) {
            if hit.node.is_opened() {
                add(hit.path, Place::Opened);
            }
        }
    }
    Ok(all)
}

fn meant(tensors: &Tensors<'_>, patterns: &[Pattern]) -> Vec<NodePath> {
    let (mut seen, mut meant) = (HashSet::new(), Vec::new());
    for tensor in tensors {
        let taking = patterns.iter().find(|pattern| tensor.is_meant(pattern));
        let root = |pattern: &Pattern| pattern.root().map(str::to_owned);
        let path = taking.map(|pattern| tensor.path.in_root(root(pattern)));
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
    let recorded = |tensor: &&Tensor<'_>| tensor.place == Place::Recorded;
    let recorded = tensors.iter().filter(recorded);
    let finds = |pattern: &Pattern| recorded.clone().any(|tensor| pattern.fits(&tensor.path));
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
