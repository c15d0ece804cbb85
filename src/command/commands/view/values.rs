//! Statistics of a run's values: norms and a histogram of each tensor that `run --save` has written.

use std::path::Path;

use graphpatch_core::error::Result;
use graphpatch_core::graph::Graph;
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::{HostTensor, safetensors};
use graphpatch_protocol::live::histogram;
use serde::Serialize;

use crate::columns::{Cells, Columns};

const BINS: usize = 32;

/// A kept value's key, and numbers that describe it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    pub key: String,
    pub dtype: &'static str,
    pub shape: Vec<i64>,
    pub count: usize,
    pub nan: usize,
    pub inf: usize,
    /// This and the next four numbers are those of the finite elements. `None` if there are none, or too few.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    /// With Bessel's correction, as `torch.std` has it.
    pub std: Option<f64>,
    pub l2: Option<f64>,
    /// How many finite elements lie in each of equal parts of `min..=max`.
    pub histogram: Vec<u64>,
}

/// The statistics of every tensor of a safetensors file.
pub fn load(file: &Path) -> Result<Vec<Statistics>> {
    let tensors = safetensors::read_all(file)?;
    Ok(tensors
        .into_iter()
        .map(|(key, tensor)| Statistics::of(key, &tensor))
        .collect())
}

/// The numbers as a table; the key is that of the file.
pub fn columns(values: &[Statistics]) -> Columns {
    let texts = |of: fn(&Statistics) -> String| {
        Cells::Texts(values.iter().map(|value| Some(of(value))).collect())
    };
    let counts = |of: fn(&Statistics) -> usize| {
        let count = |value| i64::try_from(of(value)).unwrap_or(i64::MAX);
        Cells::Counts(values.iter().map(count).collect())
    };
    let numbers =
        |of: fn(&Statistics) -> Option<f64>| Cells::Numbers(values.iter().map(of).collect());
    let mut table = Columns::default();
    table.add("key", texts(|value| value.key.clone()));
    table.add("dtype", texts(|value| value.dtype.to_owned()));
    table.add("shape", texts(|value| format!("{:?}", value.shape)));
    table.add("count", counts(|value| value.count));
    table.add("nan", counts(|value| value.nan));
    table.add("inf", counts(|value| value.inf));
    table.add("min", numbers(|value| value.min));
    table.add("max", numbers(|value| value.max));
    table.add("mean", numbers(|value| value.mean));
    table.add("std", numbers(|value| value.std));
    table.add("norm", numbers(|value| value.l2));
    table
}

impl Statistics {
    pub fn of(key: String, tensor: &HostTensor) -> Statistics {
        let numbers = tensor.numbers();
        let finite: Vec<f64> = numbers.iter().copied().filter(|x| x.is_finite()).collect();
        let nan = numbers.iter().filter(|x| x.is_nan()).count();
        let n = finite.len() as f64;
        let some = |value: f64| (!finite.is_empty() && value.is_finite()).then_some(value);
        let min = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let max = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = finite.iter().sum::<f64>() / n;
        let squares: f64 = finite.iter().map(|x| (x - mean).powi(2)).sum();
        Statistics {
            key,
            dtype: tensor.dtype().name(),
            shape: tensor.shape().to_vec(),
            count: numbers.len(),
            nan,
            inf: numbers.len() - finite.len() - nan,
            min: some(min),
            max: some(max),
            mean: some(mean),
            std: some((squares / (n - 1.0)).sqrt()),
            l2: some(finite.iter().map(|x| x * x).sum::<f64>().sqrt()),
            histogram: histogram(&finite, BINS),
        }
    }

    /// The path in a graph that the value was kept at: the key without what `run --save` appends to it (`#0`, `~2`,
    /// `@PID`).
    pub fn path(&self, graph: &Graph) -> Option<NodePath> {
        let mut text = self.key.as_str();
        loop {
            let path = text.parse::<NodePath>().ok();
            if let Some(path) = path.filter(|path| graph.value(path).is_some()) {
                return Some(graph.canonical(&path));
            }
            let digits = text.trim_end_matches(|c: char| c.is_ascii_digit());
            text = digits.strip_suffix(['#', '~', '@'])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::view::samples;
    use graphpatch_core::tensor::Dtype;

    fn statistics(key: &str, numbers: &[f32]) -> Statistics {
        let mut tensor = HostTensor::zeros(Dtype::F32, &[numbers.len() as i64]).expect("tensor");
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
        tensor.bytes_mut().copy_from_slice(&bytes);
        Statistics::of(key.into(), &tensor)
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let all = statistics("x", &[3.0, f32::NAN, -4.0, f32::INFINITY]);
        assert_eq!((all.count, all.nan, all.inf), (4, 1, 1));
        assert_eq!(
            (all.min, all.max, all.mean),
            (Some(-4.0), Some(3.0), Some(-0.5))
        );
        assert_eq!(all.l2, Some(5.0));
        assert_eq!(all.std, Some(24.5f64.sqrt()));
        assert_eq!((all.histogram[0], all.histogram[BINS - 1]), (1, 1));
        let none = statistics("x", &[f32::NAN]);
        assert_eq!((none.min, none.std, none.l2), (None, None, None));
        assert!(none.histogram.is_empty());
        let one = statistics("x", &[2.0]);
        assert_eq!((one.mean, one.std, one.histogram[0]), (Some(2.0), None, 1));
    }

    #[test]
    fn keys_lead_to_nodes() {
        let graph = samples::graph();
        for (key, path) in [
            ("x", Some("x")),
            ("linear.output#12", Some("linear.output")),
            ("x~2", Some("x")),
            ("split|sub_1~2#0@77~", Some("split|sub_1")),
            // The name `linear_0` is used only if the module is called more than once.
            ("linear_0.output", None),
            ("linear", None),
            ("absent#1", None),
        ] {
            let found = statistics(key, &[]).path(&graph);
            assert_eq!(found.map(|path| path.to_string()).as_deref(), path, "{key}");
        }
    }
}
