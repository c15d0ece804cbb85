//! The runs that a patch is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A range of runs, which are counted from 0. In JSON it is a text: `0`, `2..`, `0..4`; the default is all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunRange {
    pub from: u64,
    /// The first run after the range; without it the range has no end.
    pub until: Option<u64>,
}

impl RunRange {
    /// One run alone.
    pub fn one(run: u64) -> Option<RunRange> {
        let until = Some(run.checked_add(1)?);
        Some(RunRange { from: run, until })
    }

    /// Whether no run is left out.
    pub fn is_all(&self) -> bool {
        *self == RunRange::default()
    }

    /// Whether the patch is for run number `run`.
    #[inline]
    pub fn contains(&self, run: u64) -> bool {
        self.from <= run && self.until.is_none_or(|until| run < until)
    }
}

impl FromStr for RunRange {
    type Err = Error;

    /// Reads `3` (that run), `2..` (from it on), `0..4` (0 to 3), `..4` and `..`.
    fn from_str(text: &str) -> Result<RunRange, Error> {
        let fail = |at: usize, why: &str| Error::Parse {
            what: "runs",
            text: text.to_owned(),
            at,
            why: why.to_owned(),
        };
        let number = |piece: &str, at: usize| -> Result<u64, Error> {
            let digits = piece.trim();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(fail(
                    at,
                    "expected the number of a run, or a range such as 2.. or 0..4",
                ));
            }
            digits
                .parse()
                .map_err(|_| fail(at, "this number is too large"))
        };
        let Some((from, until)) = text.split_once("..") else {
            let run = number(text, 0)?;
            return RunRange::one(run).ok_or_else(|| fail(0, "this number is too large"));
        };
        let behind = from.chars().count() + 2;
        let from = if from.trim().is_empty() {
            0
        } else {
            number(from, 0)?
        };
        let until = match until.trim() {
            "" => None,
            _ => Some(number(until, behind)?),
        };
        if until.is_some_and(|until| until <= from) {
            return Err(fail(
                behind,
                "no run lies in this range; its end is not part of it",
            ));
        }
        Ok(RunRange { from, until })
    }
}

impl fmt::Display for RunRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) if self.from.checked_add(1) == Some(until) => write!(f, "{}", self.from),
            Some(until) => write!(f, "{}..{until}", self.from),
            None => write!(f, "{}..", self.from),
        }
    }
}

as_text!(RunRange);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any range with a run in it.
    pub fn any_runs() -> impl Strategy<Value = RunRange> {
        let ended = (any::<u64>(), 1..u64::MAX).prop_map(|(from, more)| RunRange {
            from: from.min(u64::MAX - 1),
            until: Some(from.min(u64::MAX - 1).saturating_add(more)),
        });
        let open = any::<u64>().prop_map(|from| RunRange { from, until: None });
        prop_oneof![
            Just(RunRange::default()),
            ended,
            open,
            (0..9u64).prop_map(|run| RunRange::one(run).unwrap())
        ]
    }

    #[test]
    fn reads_runs() {
        for (text, canonical, inside, outside) in [
            ("0", "0", 0, Some(1)),
            (" 7 ", "7", 7, Some(6)),
            ("2..", "2..", 2, Some(1)),
            ("0..4", "0..4", 3, Some(4)),
            ("..4", "0..4", 0, Some(4)),
            ("3 .. 4", "3", 3, Some(4)),
            ("..", "0..", u64::MAX, None),
        ] {
            let runs: RunRange = text.parse().unwrap();
            assert_eq!(runs.to_string(), canonical, "{text}");
            assert!(
                runs.contains(inside) && outside.is_none_or(|run| !runs.contains(run)),
                "{text}"
            );
        }
        assert!(RunRange::default().is_all() && "0..".parse::<RunRange>().unwrap().is_all());
        assert_eq!(RunRange::one(u64::MAX), None);
    }

    #[test]
    fn refuses_the_rest() {
        for (text, at) in [
            ("", 0),
            ("x", 0),
            ("-1", 0),
            ("+1", 0),
            ("1.", 0),
            ("0..=4", 3),
            ("0...4", 3),
            ("4..4", 3),
            ("10..5", 4),
            ("18446744073709551615", 0),
            ("99999999999999999999", 0),
            ("1,2", 0),
        ] {
            match text.parse::<RunRange>() {
                Err(Error::Parse { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(runs in any_runs()) {
            prop_assert_eq!(runs.to_string().parse::<RunRange>().unwrap(), runs);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[0-9. =é]{0,8}") {
            let _ = text.parse::<RunRange>();
            if let Ok(runs) = grammar.parse::<RunRange>() {
                prop_assert_eq!(runs.to_string().parse::<RunRange>().unwrap(), runs);
            }
        }
    }
}
