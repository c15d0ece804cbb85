//! `graphpatch check`: whether patches fit a saved graph, without running anything.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use graphpatch_core::error::{Error, Result as GpResult};
use graphpatch_core::graph::{self, Graph, GraphFile, Value};
use graphpatch_core::patch::PatchSpec;
use graphpatch_core::path::NodePath;

use crate::patch_arguments::{OPTIONS, PatchArguments};
use crate::voice::Stop;

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
        against(&GraphFile::load(&self.graph)?.graphs, &patches)?;
        Ok(0)
    }
}

/// Refuses paths that name no leaf of any graph, and slices that fit no shape that was seen.
pub fn against(graphs: &[Graph], patches: &[PatchSpec]) -> GpResult<()> {
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
            // One graph that it fits is enough: names may mean different things in different models.
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
        Ok(())
    } else {
        Err(Error::Path(bad.join("\ngraphpatch: ")))
    }
}

/// Why the slice does not fit; a shape that differed between runs is judged by its largest form.
fn misfit(value: &Value, patch: &PatchSpec) -> Option<Error> {
    let Value::Tensor(info) = value else {
        return None;
    };
    let shape: Vec<i64> = info.shape.iter().map(|dim| dim.max).collect();
    let strides = vec![0; shape.len()];
    patch.slice.region(&shape, &strides).err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Dim, Kind, Node, TensorInfo};

    fn one_tensor() -> Graph {
        let info = TensorInfo {
            shape: vec![Dim { min: 2, max: 4 }, Dim { min: 3, max: 3 }],
            ..TensorInfo::default()
        };
        let mut graph = Graph::new("m.forward");
        graph
            .root
            .children
            .push(Node::new(Kind::Op, "add").with_value(Value::Tensor(info)));
        graph
    }

    #[test]
    fn slices_are_checked() {
        let patches = |text: &str| [text.parse().expect("patch")];
        assert!(against(&[one_tensor()], &patches("add[3, -3]=zero")).is_ok());
        let text = against(&[one_tensor()], &patches("add[..., 3]=zero"))
            .expect_err("beyond")
            .to_string();
        assert!(
            text.starts_with("add: slice") && text.contains("(4, 3)"),
            "{text}"
        );
        for text in ["mul=zero", "mul=probe", "mul=record"] {
            assert!(against(&[one_tensor()], &patches(text)).is_err());
        }
        assert!(against(&[one_tensor()], &patches("add=probe")).is_ok());
    }
}
