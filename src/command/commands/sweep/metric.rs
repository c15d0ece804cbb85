//! What a sweep measures in each run: a number that the program prints, or how far a value is from the bare run's.

use std::str::FromStr;

use graphpatch_core::error::Error;
use graphpatch_core::patch::{Kind, PatchSpec};
use graphpatch_core::path::NodePath;
use graphpatch_core::tensor::HostTensor;
use regex::Regex;

use super::table::{Column, Measure};
use crate::launch::once::Done;

/// A metric: `regex:PATTERN`, `distance:PATH` or `mean-distance:PATH`, with `NAME=` in front if it is to be called so.
#[derive(Clone, Debug)]
pub struct Metric {
    /// The name that the user gave, or else the metric's text.
    pub name: String,
    what: MetricKind,
}

#[derive(Clone, Debug)]
enum MetricKind {
    /// The last match in stdout, or else in stderr: its first group, or all of it.
    Regex(Regex),
    /// The norm of the difference to the bare run of the last value of a path.
    Distance(NodePath),
    /// The mean of these norms over all values of a path.
    MeanDistance(NodePath),
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Metric, Error> {
        let fail = |at: usize, why: String| Error::Parse {
            what: "metric",
            text: text.to_owned(),
            at,
            why,
        };
        let parse = |text: &str| -> Result<Option<MetricKind>, Error> {
            let Some((kind, rest)) = text.split_once(':') else {
                return Ok(None);
            };
            let path = || match rest.parse::<NodePath>() {
                Ok(path) if path.is_root() => {
                    Err(fail(kind.len() + 1, "the path is missing".into()))
                }
                path => path,
            };
            Ok(Some(match kind {
                "regex" => MetricKind::Regex(
                    regex::RegexBuilder::new(rest)
                        .multi_line(true)
                        .build()
                        .map_err(|why| fail(kind.len() + 1, why.to_string()))?,
                ),
                "distance" => MetricKind::Distance(path()?),
                "mean-distance" => MetricKind::MeanDistance(path()?),
                _ => return Ok(None),
            }))
        };
        if let Some(what) = parse(text)? {
            let name = text.to_owned();
            return Ok(Metric { name, what });
        }
        if let Some((name, rest)) = text.split_once('=')
            && let Some(what) = parse(rest)?
            && !name.is_empty()
        {
            let name = name.to_owned();
            return Ok(Metric { name, what });
        }
        let why = "expected regex:PATTERN, distance:PATH or mean-distance:PATH, or NAME= and one of these";
        Err(fail(0, why.to_owned()))
    }
}

impl Metric {
    /// The path of the value that has to be kept for it.
    pub fn path(&self) -> Option<&NodePath> {
        match &self.what {
            MetricKind::Regex(_) => None,
            MetricKind::Distance(path) | MetricKind::MeanDistance(path) => Some(path),
        }
    }

    /// The patch that keeps that value.
    pub fn keeper(&self) -> Option<PatchSpec> {
        let kind = match &self.what {
            MetricKind::Regex(_) => return None,
            MetricKind::Distance(_) => Kind::Probe,
            MetricKind::MeanDistance(_) => Kind::Record { limit: None },
        };
        Some(PatchSpec::whole(self.path()?.clone(), kind))
    }

    /// Reads the metric's result of the bare run, with which other runs are compared.
    ///
    /// # Errors
    ///
    /// The output or the value that the metric needs was not there.
    pub fn of_bare(&self, done: &Done) -> Result<Bare, String> {
        Ok(match &self.what {
            MetricKind::Regex(pattern) => Bare::Number(number(pattern, done)?),
            MetricKind::Distance(path) | MetricKind::MeanDistance(path) => {
                Bare::Values(self.values(path, done)?)
            }
        })
    }

    /// Measures another run, in comparison with the bare one.
    ///
    /// # Errors
    ///
    /// The output or the value that the metric needs was not there, or cannot be compared with the bare run's.
    pub fn of(&self, done: &Done, bare: &Bare) -> Result<f64, String> {
        match (&self.what, bare) {
            (MetricKind::Regex(pattern), _) => number(pattern, done),
            (MetricKind::Distance(path) | MetricKind::MeanDistance(path), Bare::Values(before)) => {
                mean_distance(before, &self.values(path, done)?)
                    .map_err(|why| format!("{path}: {why}"))
            }
            (_, Bare::Number(_)) => Err("the bare run kept no value".to_owned()),
        }
    }

    fn values(&self, path: &NodePath, done: &Done) -> Result<Vec<HostTensor>, String> {
        let all = matches!(self.what, MetricKind::MeanDistance(_));
        let values = done.kept(&path.to_string(), all)?;
        match values.is_empty() {
            true => Err(format!("{path}: there was no such value")),
            false => Ok(values),
        }
    }

    /// The table's column for it.
    pub fn column(&self, bare: &Bare) -> Column {
        let (measure, bare) = match bare {
            Bare::Number(number) => (Measure::Regex, *number),
            Bare::Values(_) => (Measure::Distance, 0.0),
        };
        Column {
            name: self.name.clone(),
            measure,
            bare: bare.into(),
        }
    }
}

/// What the bare run showed of one metric.
pub enum Bare {
    Number(f64),
    Values(Vec<HostTensor>),
}

fn number(pattern: &Regex, done: &Done) -> Result<f64, String> {
    let Some(found) = [&done.stdout, &done.stderr]
        .iter()
        .find_map(|text| pattern.captures_iter(text).last())
    else {
        return Err(format!("the program's output has no match of {pattern}"));
    };
    let text = found
        .get(1)
        .or(found.get(0))
        .map_or("", |part| part.as_str());
    let bare = text.trim();
    bare.parse()
        .map_err(|_| format!("{pattern} found {bare:?}, which is no number"))
}

fn mean_distance(before: &[HostTensor], after: &[HostTensor]) -> Result<f64, String> {
    if before.len() != after.len() {
        let (before, after) = (before.len(), after.len());
        return Err(format!("{after} values, in the bare run {before}"));
    }
    let mut sum = 0.0;
    for (a, b) in before.iter().zip(after) {
        let Some(distance) = a.distance(b, 0.0) else {
            return Err(format!(
                "{} {:?} cannot be compared with {} {:?} of the bare run",
                b.dtype().name(),
                b.shape(),
                a.dtype().name(),
                a.shape()
            ));
        };
        sum += distance.norm;
    }
    Ok(sum / before.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::tensor::Dtype;

    fn metric(text: &str) -> Metric {
        text.parse().expect("metric")
    }

    #[test]
    fn texts_are_read() {
        assert_eq!(metric("regex:loss=(.*)").name, "regex:loss=(.*)");
        let named = metric("loss=regex:a:b=(.*)");
        assert_eq!(named.name, "loss");
        assert!(
            matches!(&named.what, MetricKind::Regex(pattern) if pattern.as_str() == "a:b=(.*)")
        );
        let distance = metric("distance:a.b|sub_0");
        assert_eq!(
            distance.keeper().expect("probe").to_string(),
            "a.b|sub_0=probe"
        );
        for bad in [
            "",
            "loss",
            "=regex:x",
            "distance:",
            "distance:a..b",
            "regex:(",
            "loss=4",
        ] {
            assert!(bad.parse::<Metric>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_match_counts() {
        let done = Done::printed("loss 3\nloss 2.5e-1 (nan)\nlossless\n", "grad inf\n");
        let read = |text: &str| metric(text).of(&done, &Bare::Number(0.0));
        assert_eq!(read(r"regex:^loss (\S+)"), Ok(0.25));
        assert!(read(r"regex:\((.*)\)").expect("number").is_nan());
        assert_eq!(read("regex:inf$"), Ok(f64::INFINITY));
        assert!(
            read(r"regex:(\w+)$")
                .expect_err("number")
                .contains("\"lossless\", which is no")
        );
        assert!(
            read("regex:accuracy")
                .expect_err("number")
                .contains("no match")
        );
    }

    #[test]
    fn distances_are_norms() {
        let tensor = |numbers: &[f32]| {
            let shape = [numbers.len() as i64];
            let mut tensor = HostTensor::zeros(Dtype::F32, &shape).expect("tensor");
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
            tensor.bytes_mut().copy_from_slice(&bytes);
            tensor
        };
        let (a, b) = (tensor(&[0.0, 0.0]), tensor(&[3.0, 4.0]));
        let (a, b) = (std::slice::from_ref(&a), std::slice::from_ref(&b));
        assert_eq!(mean_distance(a, b), Ok(5.0));
        let (two, both) = (
            [tensor(&[1.0]), tensor(&[1.0])],
            [tensor(&[1.0]), tensor(&[3.0])],
        );
        assert_eq!(mean_distance(&two, &both), Ok(1.0));
        assert!(mean_distance(&two, a).is_err());
        assert!(mean_distance(&two[..1], a).is_err());
        assert_eq!(
            mean_distance(&two[..1], &[tensor(&[f32::NAN])]),
            Ok(f64::INFINITY)
        );
    }
}
