//! The patch that a sweep puts at each of its nodes.

use graphpatch_core::error::Error;
use graphpatch_core::patch::{PatchSpec, RunRange, Value};
use graphpatch_core::path::{NodePath, Slice};

use crate::launch::outputs::Input;
use crate::patch_arguments::values_of;
use crate::voice::Stop;

/// In the key of a safetensors file, this text stands for the node's path.
const HERE: &str = "{}";

/// A patch without a path.
pub struct Each(PatchSpec);

impl Each {
    /// Made from `zero`, `add:VALUE` or `replace:VALUE`, and from a slice with its brackets, or an empty text for none.
    pub fn new(patch: &str, slice: &str, runs: Option<RunRange>) -> Result<Each, Stop> {
        let slice: Slice = match slice.trim() {
            "" => Slice::whole(),
            slice if slice.starts_with('[') => slice.parse()?,
            inner => format!("[{inner}]").parse()?,
        };
        // `NODE` stands for the node's path, which is set later. It is seen only in the message for a wrong text.
        let mut spec: PatchSpec = format!("NODE={patch}").parse()?;
        if spec.kind.keeps() {
            return Err(Stop::usage(format!("--patch {patch}: it changes nothing")));
        }
        spec.slice = slice;
        spec.runs = runs.unwrap_or_default();
        Ok(Each(spec))
    }

    /// The file of its value, if it has one.
    pub fn input(&self) -> Option<Input> {
        values_of(std::slice::from_ref(&self.0))
            .next()
            .map(|input| Input {
                reader: "--patch".into(),
                ..input
            })
    }

    fn at(&self, node: &NodePath) -> PatchSpec {
        let mut spec = self.0.clone();
        spec.path = node.clone();
        if let Some(Value::File(value)) = spec.kind.value_mut()
            && let Some(key) = &mut value.key
        {
            *key = key.replace(HERE, &node.to_string());
        }
        spec
    }

    /// The patches at these nodes. The files of their values are read once, as a check.
    pub fn at_all(&self, nodes: &[NodePath]) -> Result<Vec<PatchSpec>, Stop> {
        let patches: Vec<PatchSpec> = nodes.iter().map(|node| self.at(node)).collect();
        let mut before: Option<&Value> = None;
        for patch in &patches {
            if patch.kind.value() != before {
                check_value(patch)?;
            }
            before = patch.kind.value();
        }
        Ok(patches)
    }
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
