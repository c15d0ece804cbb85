//! What two runs of a bisection have in common, and the first value in which they part, as text and as JSON.

use std::fmt::Write;

use graphpatch_core::graph::Graph;
use graphpatch_core::tensor::HostTensor;
use serde::Serialize;

use crate::commands::diff::values::{
    Dtypes, How, ValueReport, code_of, compare, in_order, node_of,
};
use crate::commands::view::values::Statistics;
use crate::terminal::{LEFT, PATH, RIGHT, styled};

/// What a program has kept.
pub type Values = Vec<(String, HostTensor)>;

/// What was found.
#[derive(Serialize)]
pub struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
    /// How many values agree.
    pub agree: usize,
    /// In the order of the first program's nodes.
    pub differences: Vec<ValueReport>,
    /// Values of other sizes, where what the programs return agrees.
    pub unlike: Vec<ValueReport>,
    only_first: Vec<String>,
    only_second: Vec<String>,
}

/// The first value in which the programs part.
#[derive(Serialize)]
pub struct First {
    #[serde(flatten)]
    report: ValueReport,
    one: Statistics,
    other: Statistics,
}

/// Whether the node of a value is what its root returns.
fn is_result(key: &str) -> bool {
    node_of(key).is_some_and(|path| {
        let names = path.without_root().names;
        names.len() == 1 && names[0] == "output"
    })
}

impl Found {
    pub fn of(kept: &[Values; 2], graphs: &[Graph], tolerance: f64) -> Found {
        let [a, b] = kept;
        let reports = in_order(compare(a, b, tolerance, Dtypes::Compare), graphs);
        let (mut differences, mut unlike) = (Vec::new(), Vec::new());
        let (mut only_first, mut only_second) = (Vec::new(), Vec::new());
        for report in reports {
            match report.how {
                How::OnlyA { .. } => only_first.push(report.key),
                How::OnlyB { .. } => only_second.push(report.key),
                How::Kind { .. } => unlike.push(report),
                How::Distance(_) | How::Bytes { .. } => differences.push(report),
            }
        }
        // Compiled code computes some values, masks for instance, in other sizes than the model.
        let compared = |key: &String| is_result(key) && !only_first.contains(key);
        let results = a.iter().filter(|(key, _)| compared(key)).count();
        let agree = a.len() - only_first.len() - differences.len() - unlike.len();
        if results == 0 || unlike.iter().any(|report| is_result(&report.key)) {
            differences.append(&mut unlike);
            differences = in_order(differences, graphs);
        }
        let value = |side: &Values, key: &str| {
            let found = side.iter().find(|(other, _)| other == key);
            found.map(|(_, value)| Statistics::of(key.to_owned(), value))
        };
        let first = differences.first().and_then(|report| {
            Some(First {
                report: ValueReport {
                    code: code_of(&report.key, graphs),
                    ..report.clone()
                },
                one: value(a, &report.key)?,
                other: value(b, &report.key)?,
            })
        });
        Found {
            first,
            agree,
            differences,
            unlike,
            only_first,
            only_second,
        }
    }

    pub fn text(&self, tolerance: f64, color: bool) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        if let Some(first) = &self.first {
            let _ = writeln!(text, "{}", first.heading(tolerance, color));
            let _ = writeln!(
                text,
                "  first program:  {}",
                styled(&summary(&first.one), LEFT, color)
            );
            let _ = writeln!(
                text,
                "  second program: {}",
                styled(&summary(&first.other), RIGHT, color)
            );
            for line in first.report.code.iter().flat_map(|code| code.lines()) {
                let _ = writeln!(text, "    {line}");
            }
        }
        let _ = write!(text, "{} of the values agree", self.agree);
        if !self.differences.is_empty() {
            let _ = write!(text, ", {} do not", self.differences.len());
        }
        if !self.unlike.is_empty() {
            let _ = write!(text, ", {} have other sizes", self.unlike.len());
        }
        text.push('\n');
        for (whose, keys) in [("first", &self.only_first), ("second", &self.only_second)] {
            if let [one, ..] = &keys[..] {
                let count = keys.len();
                let _ = writeln!(text, "only the {whose} program has {count}, such as {one}");
            }
        }
        text
    }
}

impl First {
    fn heading(&self, tolerance: f64, color: bool) -> String {
        let path = styled(&self.report.key, PATH, color);
        match &self.report.how {
            How::Distance(d) => {
                let at: Vec<String> = d.first.iter().flatten().map(i64::to_string).collect();
                format!(
                    "{path}: {} of {} elements differ by more than {tolerance:e}, by up to {:.3e}, first at [{}]",
                    d.count,
                    self.one.count,
                    d.max_abs,
                    at.join(", ")
                )
            }
            How::Bytes { dtype } => format!("{path}: different {dtype} elements"),
            _ => format!("{path}: different sizes"),
        }
    }
}

/// The statistics of a value in one line.
fn summary(value: &Statistics) -> String {
    let sizes: Vec<String> = value.shape.iter().map(i64::to_string).collect();
    let mut text = format!("Tensor({}) {}", sizes.join(", "), value.dtype);
    let numbers = [
        ("min", value.min),
        ("max", value.max),
        ("mean", value.mean),
        ("norm", value.l2),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            let _ = write!(text, ", {name} {number:.6}");
        }
    }
    for (name, count) in [("NaN", value.nan), ("Inf", value.inf)] {
        if count > 0 {
            let _ = write!(text, ", {count} {name}");
        }
    }
    text
}
