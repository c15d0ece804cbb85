//! The patch that a sweep puts at each of its nodes, and at each place of its slice's axis.

use std::path::Path;

use graphpatch_core::error::Error;
use graphpatch_core::patch::{PatchSpec, RunRange, Value};
use graphpatch_core::path::{NodePath, Slice};
use graphpatch_core::tensor::{FileValue, safetensors};

use super::axis::{self, Axis};
use super::table::Key;
use crate::launch::outputs::Input;
use crate::patch_arguments::values_of;
use crate::voice::Stop;

/// In the key of a safetensors file, this text stands for the node's path.
const HERE: &str = "{}";

/// A patch without a path, and the axis of its slice.
pub struct Each {
    spec: PatchSpec,
    axis: Option<Axis>,
}

/// The patch at one node, and in one place.
pub struct Experiment {
    pub patch: PatchSpec,
    /// The item of the axis.
    pub place: Option<String>,
}

impl Each {
    /// Made from `zero`, `add:VALUE` or `replace:VALUE`, and from a slice with its brackets, or an empty text for none.
    pub fn new(patch: &str, slice: &str, runs: Option<RunRange>) -> Result<Each, Stop> {
        let axis = Axis::read(slice)?;
        let slice = match axis {
            Some(_) => Slice::whole(),
            None => axis::slice(slice)?,
        };
        // `NODE` stands for the node's path, which is set later. It is seen only in the message for a wrong text.
        let mut spec: PatchSpec = format!("NODE={patch}").parse()?;
        if spec.kind.keeps() {
            return Err(Stop::usage(format!("--patch {patch}: it changes nothing")));
        }
        spec.slice = slice;
        spec.runs = runs.unwrap_or_default();
        Ok(Each { spec, axis })
    }

    /// The file of its value, if it has one.
    pub fn input(&self) -> Option<Input> {
        values_of(std::slice::from_ref(&self.spec))
            .next()
            .map(|input| Input {
                reader: "--patch".into(),
                ..input
            })
    }

    fn at(&self, node: &NodePath) -> PatchSpec {
        let mut spec = self.spec.clone();
        spec.path = node.clone();
        if let Some(Value::File(value)) = spec.kind.value_mut()
            && let Some(key) = &mut value.key
        {
            *key = key.replace(HERE, &node.to_string());
        }
        spec
    }

    /// Whether each node has a value of its own, which is sliced as the node's is.
    fn has_values_of_nodes(&self) -> bool {
        matches!(self.spec.kind.value(), Some(Value::File(FileValue { key: Some(key), .. })) if key.contains(HERE))
    }

    /// The patches at these nodes, in all places. The files of their values are read once, as a check; parts of them are
    /// written to `dir`.
    pub fn at_all(&self, nodes: &[NodePath], dir: &Path) -> Result<Vec<Experiment>, Stop> {
        let patches: Vec<PatchSpec> = nodes.iter().map(|node| self.at(node)).collect();
        let mut before: Option<&Value> = None;
        for patch in &patches {
            if patch.kind.value() != before {
                check_value(patch)?;
            }
            before = patch.kind.value();
        }
        let Some(axis) = &self.axis else {
            let alone = |patch| Experiment { patch, place: None };
            return Ok(patches.into_iter().map(alone).collect());
        };
        let mut experiments = Vec::new();
        for patch in &patches {
            let first = experiments.len();
            for (place, slice) in &axis.places {
                let mut patch = patch.clone();
                patch.slice = slice.clone();
                experiments.push(Experiment {
                    patch,
                    place: Some(place.clone()),
                });
            }
            if self.has_values_of_nodes() {
                let file = dir.join(format!("value-{first}.safetensors"));
                slice_values(&mut experiments[first..], patch, file)?;
            }
        }
        Ok(experiments)
    }
}

impl Experiment {
    /// By what its row is found.
    pub fn key(&self) -> Key {
        (self.patch.path.clone(), self.place.clone())
    }
}

/// Gives the experiments at one node the parts of the node's value that their slices are of.
fn slice_values(
    experiments: &mut [Experiment],
    patch: &PatchSpec,
    file: std::path::PathBuf,
) -> Result<(), Stop> {
    let fail = |why: Error| Stop::usage(format!("{}: the value of --patch: {why}", patch.path));
    let Some(Value::File(whole)) = patch.kind.value() else {
        return Ok(());
    };
    let whole = whole.load().map_err(fail)?;
    let mut parts = Vec::new();
    for (number, experiment) in experiments.iter_mut().enumerate() {
        let part = whole.sliced(&experiment.patch.slice).map_err(fail)?;
        parts.push((number.to_string(), part));
        let value = FileValue::new(file.clone(), Some(number.to_string())).map_err(fail)?;
        if let Some(place) = experiment.patch.kind.value_mut() {
            *place = Value::File(value);
        }
    }
    safetensors::save(&file, &parts).map_err(fail)
}

/// Reads the file of a patch's value, to see that it is good.
pub fn check_value(spec: &PatchSpec) -> Result<(), Stop> {
    match spec.kind.value() {
        Some(Value::File(value)) => value
            .load()
            .map(|_| ())
            .map_err(|why: Error| Stop::usage(format!("{}: {why}", spec.path))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(patch: &str, slice: &str) -> String {
        let each = Each::new(patch, slice, None).map_err(|stop| stop.message);
        let node = "a_1.b|sub_0".parse().expect("path");
        each.map_or_else(|why| why, |each| each.at(&node).to_string())
    }

    #[test]
    fn patches_get_their_nodes() {
        assert_eq!(at("zero", ""), "a_1.b|sub_0=zero");
        assert_eq!(at("add:0.5", "[..., 0]"), "a_1.b|sub_0[..., 0]=add:0.5");
        assert_eq!(at("zero", "..., -1"), "a_1.b|sub_0[..., -1]=zero");
        assert_eq!(
            at("replace:@clean.safetensors#run.{}#0", ""),
            "a_1.b|sub_0=replace:@clean.safetensors#run.a_1.b|sub_0#0"
        );
        assert!(at("double", "").contains("double"));
        assert!(at("probe", "").contains("changes nothing"));
        assert!(at("zero", "[a]").contains('a'));
        assert!(at("zero", "[]").contains("slice"));
    }
}
