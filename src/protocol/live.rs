//! What a client asks a process that listens for live control, and what it is answered: one JSON object a line. The page
//! `docs/reference/live.md` tells the same to other clients.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The number of this protocol. It rises with each change that an old client would misunderstand.
pub const PROTOCOL: u32 = 1;

/// The most bytes that a line of a client's may have.
pub const LONGEST: usize = 1 << 20;

/// One request. `do` names it; numbers are those of patches, probes and records.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Which process this is.
    Hello {},
    /// The trees of what was recorded.
    Tree {
        #[serde(default)]
        path: Option<String>,
        #[serde(default)]
        depth: Option<usize>,
    },
    /// The recorded graphs, as a graph file has them.
    Graph {},
    /// Registers a patch.
    Patch {
        patch: String,
        #[serde(default)]
        hold: bool,
    },
    /// Keeps the last value of a node.
    Probe {
        path: String,
        #[serde(default)]
        hold: bool,
    },
    /// Keeps every value of a node, or the first `limit`.
    Record {
        path: String,
        #[serde(default)]
        limit: Option<u64>,
        #[serde(default)]
        hold: bool,
    },
    /// Whether runs are recorded into the graphs.
    Recording {
        on: bool,
        #[serde(default)]
        hold: bool,
    },
    Off {
        number: u64,
    },
    On {
        number: u64,
    },
    Remove {
        number: u64,
    },
    /// What a probe or record has kept: its last value, or number `index`.
    Value {
        number: u64,
        #[serde(default)]
        index: Option<u64>,
        #[serde(default)]
        elements: usize,
    },
    Counts {},
    Notes {},
    /// Writes all kept values to a safetensors file.
    Save {
        file: PathBuf,
    },
    /// Removes everything that came by the socket, and stops listening.
    Stop {},
    /// The same, and nothing of the library is in the way of runs any more.
    Detach {},
}

/// Which process it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub pid: u32,
    pub command: Vec<String>,
    pub rank: Option<String>,
    pub runs: u64,
    pub recording: bool,
}

/// The tree of one root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootTree {
    pub name: String,
    pub tree: String,
}

/// The state of one patch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PatchState {
    pub number: u64,
    pub text: String,
    pub on: bool,
    pub matched: u64,
    pub applied: u64,
    pub failed: u64,
    pub last_error: Option<String>,
    pub kept: Option<u64>,
    pub dropped: Option<u64>,
}

/// A tensor in numbers. All but the first three are those of its finite elements; `None` where it has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub elements: usize,
    pub nan: usize,
    pub inf: usize,
    pub norm: Option<f64>,
    pub mean: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// How many finite elements lie in each of [`PARTS`] equal parts between the smallest and the largest; empty where there is
    /// none.
    #[serde(default)]
    pub histogram: Vec<u64>,
}

/// The parts of a histogram.
pub const PARTS: usize = 16;

impl Statistics {
    pub fn of(numbers: &[f64]) -> Statistics {
        let finite: Vec<f64> = numbers.iter().copied().filter(|x| x.is_finite()).collect();
        let nan = numbers.iter().filter(|x| x.is_nan()).count();
        let largest = finite.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        // The elements are scaled, so that the square of a large one is not infinite.
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let squares: f64 = finite.iter().map(|x| (x / scale) * (x / scale)).sum();
        let count = finite.len() as f64;
        let any = |number: f64| (!finite.is_empty()).then_some(number);
        Statistics {
            elements: numbers.len(),
            nan,
            inf: numbers.len() - finite.len() - nan,
            norm: any(scale * squares.sqrt()),
            mean: any(finite.iter().map(|x| x / count).sum()),
            min: finite.iter().copied().reduce(f64::min),
            max: finite.iter().copied().reduce(f64::max),
            histogram: histogram(&finite, PARTS),
        }
    }
}

/// How many of these numbers lie in each of so many equal parts between the smallest and the largest; empty where there is none.
/// If all are equal, they are in the first part.
pub fn histogram(finite: &[f64], parts: usize) -> Vec<u64> {
    let (Some(min), Some(max)) = (
        finite.iter().copied().reduce(f64::min),
        finite.iter().copied().reduce(f64::max),
    ) else {
        return Vec::new();
    };
    let mut counts = vec![0; parts];
    for x in finite {
        // Each is halved, so that the difference of large ones is not infinite.
        let place = (x / 2.0 - min / 2.0) / (max / 2.0 - min / 2.0) * parts as f64;
        let part = if place.is_finite() { place as usize } else { 0 };
        counts[part.min(parts - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_finite_elements() {
        let all = [3.0, f64::NAN, -4.0, f64::INFINITY, f64::NEG_INFINITY];
        let found = Statistics::of(&all);
        assert_eq!((found.elements, found.nan, found.inf), (5, 1, 2));
        assert_eq!((found.norm, found.mean), (Some(5.0), Some(-0.5)));
        assert_eq!((found.min, found.max), (Some(-4.0), Some(3.0)));
        assert_eq!(Statistics::of(&[f64::NAN]).mean, None);
        assert_eq!(Statistics::of(&[]).norm, None);
        assert_eq!(Statistics::of(&[0.0]).norm, Some(0.0));
        assert_eq!(Statistics::of(&[1e300]).norm, Some(1e300));
        let mut parts = vec![0; PARTS];
        (parts[0], parts[PARTS - 1]) = (1, 1);
        assert_eq!(found.histogram, parts);
        assert_eq!(Statistics::of(&[f64::MIN, f64::MAX]).histogram, parts);
        assert!(Statistics::of(&[f64::NAN]).histogram.is_empty());
        (parts[0], parts[PARTS - 1]) = (2, 0);
        assert_eq!(Statistics::of(&[7.0, 7.0]).histogram, parts);
        let counts = Statistics::of(&(0..160).map(f64::from).collect::<Vec<_>>()).histogram;
        assert_eq!(counts.iter().sum::<u64>(), 160);
        assert!(counts.iter().all(|count| *count == 10), "{counts:?}");
    }

    #[test]
    fn requests_are_read_strictly() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert!(matches!(read(r#"{"do":"counts"}"#), Ok(Request::Counts {})));
        assert!(matches!(
            read(r#"{"do":"record","path":"a"}"#),
            Ok(Request::Record {
                limit: None,
                hold: false,
                ..
            })
        ));
        for bad in [
            r#"{"do":"fly"}"#,
            r#"{"do":"off"}"#,
            r#"{"do":"counts","x":1}"#,
            "{}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
