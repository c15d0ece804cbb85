//! `graphpatch check`: whether patches fit a saved graph, without running anything.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use graphpatch_core::error::{Error, Result as GpResult};
use graphpatch_core::graph::{self, Graph, GraphFile, Value};
use graphpatch_core::layout::{LeadingOnes, broadcast};
use graphpatch_core::patch::{Kind, PatchSpec, Value as Operand};
use graphpatch_core::path::NodePath;

use crate::patch_arguments::{OPTIONS, PatchArguments};
use crate::voice::{Stop, say};

/// Check patches against a saved graph, without running anything
#[derive(Args)]
#[command(group(ArgGroup::new("asked").args(OPTIONS).required(true).multiple(true)))]
pub struct Check {
    /// A graph saved by `graphpatch run --graph`
    graph: PathBuf,
    #[command(flatten)]
    asked: PatchArguments,
}

impl Check {
    pub fn run(self) -> Result<u8, Stop> {
        let patches = self.asked.specs()?;
        let graphs = GraphFile::load(&self.graph)?.graphs;
        let patches = against(&graphs, patches)?;
        for note in shared(&graphs, &patches) {
            say(note);
        }
        Ok(0)
    }
}

/// A line for each path that exists in several roots.
pub fn shared(graphs: &[Graph], patches: &[PatchSpec]) -> Vec<String> {
    let mut known: HashSet<&NodePath> = HashSet::new();
    let paths = patches.iter().map(|patch| &patch.path);
    let paths: Vec<&NodePath> = paths.filter(|path| known.insert(path)).collect();
    let lines = paths
        .iter()
        .filter_map(|path| graph::shared_note(graphs, path));
    lines.collect()
}

/// Refuses paths that name no leaf of any graph, patterns that match no tensor, and slices that fit no recorded shape.
/// Returns the patches; one at a pattern becomes one patch for each tensor that the pattern matches.
pub fn against(graphs: &[Graph], patches: Vec<PatchSpec>) -> GpResult<Vec<PatchSpec>> {
    let patches = graph::expand(graphs, patches)?;
    let paths: Vec<NodePath> = patches.iter().map(|patch| patch.path.clone()).collect();
    graph::check(graphs, &paths)?;
    let bad: Vec<String> = patches
        .iter()
        .filter_map(|patch| {
            let faults: Vec<Option<Error>> = graphs
                .iter()
                .filter_map(|graph| graph.value(&patch.path))
                .map(|value| misfit(&value, patch))
                .collect();
            // The patch has to fit in one graph only, as the same name may mean different things in different models.
            if faults.iter().any(Option::is_none) {
                return None;
            }
            faults
                .into_iter()
                .flatten()
                .next()
                .map(|error| format!("{}: {error}", patch.path))
        })
        .collect();
    if bad.is_empty() {
        Ok(patches)
    } else {
        Err(Error::Path(bad.join("\ngraphpatch: ")))
    }
}

/// Why the slice does not fit the node, or why the value does not fit the slice. If the shape differed between runs, its
/// largest form counts; a value that fits the smallest form is accepted, too.
fn misfit(value: &Value, patch: &PatchSpec) -> Option<Error> {
    let Value::Tensor(info) = value else {
        return None;
    };
    let largest: Vec<i64> = info.shape.iter().map(|dim| dim.max).collect();
    let smallest: Vec<i64> = info.shape.iter().map(|dim| dim.min).collect();
    let changed = match region(patch, &largest) {
        Ok(sizes) => sizes,
        Err(error) => return Some(error),
    };
    let leading = match patch.kind {
        Kind::Add(_) => LeadingOnes::Refused,
        _ => LeadingOnes::Dropped,
    };
    // A file that cannot be read was already refused when the arguments were read.
    let given = match patch.kind.value()? {
        Operand::Number(_) => return None,
        Operand::File(file) => file.load().ok()?,
    };
    let fits = |sizes: &[i64]| broadcast(sizes, given.shape(), None, leading).is_some();
    let fits_smallest = || region(patch, &smallest).is_ok_and(|sizes| fits(&sizes));
    if fits(&changed) || fits_smallest() {
        return None;
    }
    let text = |sizes: &[i64]| {
        let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
        format!("({})", sizes.join(", "))
    };
    Some(Error::Refused(format!(
        "the value's shape {} does not broadcast to {}, the shape of what the patch changes",
        text(given.shape()),
        text(&changed)
    )))
}

/// The sizes of what the patch changes in a tensor of this shape.
fn region(patch: &PatchSpec, shape: &[i64]) -> GpResult<Vec<i64>> {
    let region = patch.slice.region(shape, &vec![0; shape.len()])?;
    Ok(region.sizes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Dim, Kind as NodeKind, Node, TensorInfo};

    fn one_tensor() -> Graph {
        let info = TensorInfo {
            shape: vec![Dim { min: 2, max: 4 }, Dim { min: 3, max: 3 }],
            ..TensorInfo::default()
        };
        let mut graph = Graph::new("m.forward");
        graph
            .root
            .children
            .push(Node::new(NodeKind::Op, "add").with_value(Value::Tensor(info)));
        graph
    }

    #[test]
    fn a_path_of_several_roots_is_told() {
        let mut other = one_tensor();
        other.name = "n.forward".into();
        let graphs = [one_tensor(), other];
        let patches: Vec<PatchSpec> = ["add=zero", "add=probe", "n:add=zero"]
            .map(|text| text.parse().expect("patch"))
            .into();
        assert!(against(&graphs, patches.clone()).is_ok());
        let told = shared(&graphs, &patches);
        assert_eq!(
            told,
            [
                "add is in 2 roots (m.forward, n.forward) and holds in all of them; write m.forward:add for one of them"
            ]
        );
        let why = against(&graphs, vec!["k:add=zero".parse().expect("patch")]);
        let why = why.expect_err("no such root").to_string();
        assert!(
            why.contains("no root is called `k`; there is m.forward, n.forward"),
            "{why}"
        );
    }

    #[test]
    fn values_are_checked_against_the_slice_and_the_node() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("v.npy");
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let header = format!("{header:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        std::fs::write(&file, bytes).expect("write");
        let at = |slice: &str| {
            let text = format!("add{slice}=add:@{}", file.display());
            against(&[one_tensor()], vec![text.parse().expect("patch")])
        };
        // The node is (2..4, 3).
        for good in ["[0, :2]", "[:, 0]", "[:2, 1]"] {
            assert!(at(good).is_ok(), "{good}");
        }
        let why = at("").expect_err("two for three").to_string();
        assert!(
            why.contains("shape (2) does not broadcast to (4, 3)"),
            "{why}"
        );
        assert!(at("[..., :1]").is_err());
    }

    #[test]
    fn a_pattern_is_checked_at_every_tensor() {
        let patches = |text: &str| vec![text.parse().expect("patch")];
        let found = against(&[one_tensor()], patches("a*[0]=zero")).expect("one");
        assert_eq!(found[0].to_string(), "add[0]=zero");
        let why = against(&[one_tensor()], patches("a*[..., 3]=zero")).expect_err("beyond");
        assert!(why.to_string().starts_with("add: slice"), "{why}");
        let why = against(&[one_tensor()], patches("b*=zero")).expect_err("nothing");
        assert!(why.to_string().contains("'b*' matches no tensor"), "{why}");
    }

    #[test]
    fn slices_are_checked() {
        let patches = |text: &str| vec![text.parse().expect("patch")];
        assert!(against(&[one_tensor()], patches("add[3, -3]=zero")).is_ok());
        let text = against(&[one_tensor()], patches("add[..., 3]=zero"))
            .expect_err("beyond")
            .to_string();
        assert!(
            text.starts_with("add: slice") && text.contains("(4, 3)"),
            "{text}"
        );
        for text in ["mul=zero", "mul=probe", "mul=record"] {
            assert!(against(&[one_tensor()], patches(text)).is_err());
        }
        assert!(against(&[one_tensor()], patches("add=probe")).is_ok());
    }
}
